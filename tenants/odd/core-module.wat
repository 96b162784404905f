;; A core module, not a component: what a linker leaves that was not told of components.
(module
  (memory (export "memory") 1)
  (func (export "process") (param i32 i32) (result i32)
    local.get 0))

;; What fuel is measured on: steps over bytes, as most operators do, with a branch, a load, a
;; store and some arithmetic in each.
(module
  (memory 1)
  (func (export "work") (param $steps i32) (result i32)
    (local $at i32)
    (local $byte i32)
    (local $sum i32)
    (loop $step
      (local.set $byte (i32.load8_u (local.get $at)))
      (if (i32.and (local.get $byte) (i32.const 1))
        (then (local.set $sum (i32.add (local.get $sum) (local.get $byte))))
        (else (local.set $sum (i32.mul (local.get $sum) (i32.const 31)))))
      (i32.store8 (local.get $at) (i32.add (local.get $sum) (local.get $at)))
      (local.set $at (i32.and (i32.add (local.get $at) (i32.const 1)) (i32.const 0xffff)))
      (local.set $steps (i32.sub (local.get $steps) (i32.const 1)))
      (br_if $step (local.get $steps)))
    (local.get $sum)))

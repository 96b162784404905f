;; Map in the packed contract that looks for what another left behind in its slot. A payload
;; that begins with `p` paints: all of memory, the part of it where other guests have their
;; stack, all globals, a whole table, and the machine's stack. One that begins with `l` looks
;; for that paint, and says where it is at the payload's fifth to eighth byte: `SMGT` for
;; stack, memory, globals and table, each `-` if it is not. All else passes.
;;
;; Text, since Rust has no tables and no globals of its own to paint.
(module
  (memory (export "memory") 16)
  (global $first (mut i64) (i64.const 0))
  (global $second (mut i32) (i32.const 0))
  (global $third (mut funcref) (ref.null func))
  ;; As large as the host lets a table be.
  (table $table 10000 10000 funcref)
  (elem declare func $paint_stack)

  ;; Below: what is returned, and the stack. From here: arguments, and all the rest.
  (global $arguments i32 (i32.const 65536))
  (global $next (mut i32) (i32.const 65536))

  (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $len i32) (result i32)
    (local $at i32)
    (local.set $at
      (i32.and
        (i32.sub (i32.add (global.get $next) (local.get $align)) (i32.const 1))
        (i32.sub (i32.const 0) (local.get $align))))
    (global.set $next (i32.add (local.get $at) (local.get $len)))
    (local.get $at))

  ;; `Ok`: zeros.
  (func (export "tidegate:operator/map@0.1.0#init") (param i32 i32 i32 i32) (result i32)
    (i32.const 64))

  (func (export "tidegate:operator/map@0.1.0#process")
    (param $entries i32) (param $entries_len i32) (param $arena i32) (param $arena_len i32) (result i32)
    (local $entry i32) (local $end i32) (local $payload i32) (local $verb i32)
    (local.set $entry (local.get $entries))
    (local.set $end
      (i32.add (local.get $entries) (i32.mul (local.get $entries_len) (i32.const 8))))
    ;; Up to a multiple of eight, where words are looked at.
    (global.set $next (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (block $done
      (loop $each
        (br_if $done (i32.ge_u (local.get $entry) (local.get $end)))
        ;; The eighth of ten words is the payload's span.
        (local.set $payload
          (i32.add (local.get $arena) (i32.load offset=56 (local.get $entry))))
        (local.set $verb (i32.load8_u (local.get $payload)))
        (if (i32.eq (local.get $verb) (i32.const 0x70)) (then (call $paint)))
        (if (i32.eq (local.get $verb) (i32.const 0x6c)) (then (call $look (local.get $payload))))
        (local.set $entry (i32.add (local.get $entry) (i32.const 80)))
        (br $each)))
    (i32.store (i32.const 16) (local.get $entries))
    (i32.store (i32.const 20) (local.get $entries_len))
    (i32.store (i32.const 24) (i32.const 64))
    (i32.store (i32.const 28) (i32.const 0))
    (i32.store (i32.const 32) (local.get $arena))
    (i32.store (i32.const 36) (local.get $arena_len))
    (global.set $next (global.get $arguments))
    (i32.const 16))

  (func $grow
    (loop $more
      (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))))

  (func $size (result i32)
    (i32.mul (memory.size) (i32.const 65536)))

  (func $paint
    (call $grow)
    (memory.fill (i32.const 1024) (i32.const 0xa5) (i32.sub (global.get $arguments) (i32.const 1024)))
    (memory.fill (global.get $next) (i32.const 0xa5) (i32.sub (call $size) (global.get $next)))
    (global.set $first (i64.const 0xa5a5a5a5a5a5a5a5))
    (global.set $second (i32.const 0xa5a5a5a5))
    (global.set $third (ref.func $paint_stack))
    (table.fill $table (i32.const 0) (ref.func $paint_stack) (table.size $table))
    (drop (call $paint_stack (i32.const 400) (i64.const 0xa5a5a5a5a5a5a5a5))))

  ;; All of the parameters are needed after the call, so that each frame holds them.
  (func $paint_stack (param $depth i32) (param $paint i64) (result i64)
    (if (result i64) (i32.eqz (local.get $depth))
      (then (local.get $paint))
      (else
        (i64.or
          (local.get $paint)
          (call $paint_stack (i32.sub (local.get $depth) (i32.const 1)) (local.get $paint))))))

  (func $look (param $payload i32)
    (local $index i32)
    (call $grow)
    (i32.store8 offset=4 (local.get $payload) (i32.const 0x2d))
    (i32.store8 offset=5 (local.get $payload) (i32.const 0x2d))
    (i32.store8 offset=6 (local.get $payload) (i32.const 0x2d))
    (i32.store8 offset=7 (local.get $payload) (i32.const 0x2d))
    (if (call $painted (i32.const 1024) (global.get $arguments))
      (then (i32.store8 offset=4 (local.get $payload) (i32.const 0x53))))
    (if (call $painted (global.get $next) (call $size))
      (then (i32.store8 offset=5 (local.get $payload) (i32.const 0x4d))))
    (if (i32.or
          (i64.ne (global.get $first) (i64.const 0))
          (i32.or
            (i32.ne (global.get $second) (i32.const 0))
            (i32.eqz (ref.is_null (global.get $third)))))
      (then (i32.store8 offset=6 (local.get $payload) (i32.const 0x47))))
    (loop $each
      (if (i32.eqz (ref.is_null (table.get $table (local.get $index))))
        (then (i32.store8 offset=7 (local.get $payload) (i32.const 0x54))))
      (local.set $index (i32.add (local.get $index) (i32.const 1)))
      (br_if $each (i32.lt_u (local.get $index) (table.size $table)))))

  ;; Whether any word is not zero: whatever another has left, not only this paint.
  (func $painted (param $at i32) (param $end i32) (result i32)
    (loop $each
      (if (i64.ne (i64.load (local.get $at)) (i64.const 0))
        (then (return (i32.const 1))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $each (i32.lt_u (local.get $at) (local.get $end))))
    (i32.const 0)))

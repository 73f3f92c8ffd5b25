"""What runs a kernel's grid on threads, as native code that each program brings along.

    int32_t fusec_parallel(kernel, void **args, int64_t grid, int64_t threads)
    void fusec_batch(void **table, int64_t lo, int64_t hi)

`fusec_parallel` runs the programs 0 .. grid-1 of a kernel; it returns 0, or the error
code of the pool that `fusec_pool` points to (see `runtime.launcher_cpu`). `fusec_batch`
runs several launches as one. It is a kernel itself: its args are a table of them, and
its grid counts units of work, so that threads share out what there is to do rather
than programs, which may differ:

    table    count, then of each launch kernel, args, first unit, grid, units/program

A program belongs to the part that its first unit is in.
"""

TEXT = """
%launch = type { ptr, ptr }  ; kernel, args

; torch_parallel_for, or null: run serially.
@fusec_pool = external global ptr

define internal void @part(i64 %lo, i64 %hi, ptr %launch) nounwind {
  %kernel = load ptr, ptr %launch
  %slot = getelementptr %launch, ptr %launch, i64 0, i32 1
  %args = load ptr, ptr %slot
  tail call void %kernel(ptr %args, i64 %lo, i64 %hi)
  ret void
}

define void @fusec_batch(ptr %table, i64 %lo, i64 %hi) {
  %count = load i64, ptr %table
  br label %loop

loop:
  %n = phi i64 [ 0, %0 ], [ %next, %after ]
  %at = mul i64 %n, 5
  %p1 = add i64 %at, 1
  %p2 = add i64 %at, 2
  %p3 = add i64 %at, 3
  %p4 = add i64 %at, 4
  %p5 = add i64 %at, 5
  %kernel_at = getelementptr i64, ptr %table, i64 %p1
  %args_at = getelementptr i64, ptr %table, i64 %p2
  %first_at = getelementptr i64, ptr %table, i64 %p3
  %grid_at = getelementptr i64, ptr %table, i64 %p4
  %units_at = getelementptr i64, ptr %table, i64 %p5
  %kernel = load ptr, ptr %kernel_at
  %args = load ptr, ptr %args_at
  %first = load i64, ptr %first_at
  %grid = load i64, ptr %grid_at
  %units = load i64, ptr %units_at
  %from = call i64 @program(i64 %lo, i64 %first, i64 %units, i64 %grid)
  %to = call i64 @program(i64 %hi, i64 %first, i64 %units, i64 %grid)
  %some = icmp slt i64 %from, %to
  br i1 %some, label %run, label %after

run:
  call void %kernel(ptr %args, i64 %from, i64 %to)
  br label %after

after:
  %next = add i64 %n, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %done

done:
  ret void
}

; The first program of a launch that does not begin before a unit.
define internal i64 @program(i64 %unit, i64 %first, i64 %units, i64 %grid) {
  %gap = sub i64 %unit, %first
  %before = icmp slt i64 %gap, 0
  %distance = select i1 %before, i64 0, i64 %gap
  %up = add i64 %distance, %units
  %last = sub i64 %up, 1
  %number = udiv i64 %last, %units
  %beyond = icmp ugt i64 %number, %grid
  %program = select i1 %beyond, i64 %grid, i64 %number
  ret i64 %program
}

define i32 @fusec_parallel(ptr %kernel, ptr %args, i64 %grid, i64 %threads) {
  %some = icmp sgt i64 %grid, 0
  br i1 %some, label %run, label %done

run:
  %pool = load ptr, ptr @fusec_pool
  %pooled = icmp ne ptr %pool, null
  %threaded = icmp sgt i64 %threads, 1
  %divisible = icmp sgt i64 %grid, 1
  %allowed = and i1 %pooled, %threaded
  %parallel = and i1 %allowed, %divisible
  br i1 %parallel, label %split, label %serial

serial:
  call void %kernel(ptr %args, i64 0, i64 %grid)
  br label %done

split:  ; parts of ceil(grid / threads) programs
  %launch = alloca %launch
  store ptr %kernel, ptr %launch
  %slot = getelementptr %launch, ptr %launch, i64 0, i32 1
  store ptr %args, ptr %slot
  %last = sub i64 %grid, 1
  %whole = udiv i64 %last, %threads
  %share = add i64 %whole, 1
  %failed = call i32 %pool(i64 0, i64 %grid, i64 %share, ptr @part, ptr %launch)
  br label %done

done:
  %status = phi i32 [ 0, %0 ], [ 0, %serial ], [ %failed, %split ]
  ret i32 %status
}
"""
"""A module of LLVM assembly."""

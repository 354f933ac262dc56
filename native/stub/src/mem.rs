//! The memory functions that compiled code calls and a C library would have.

use core::arch::asm;

/// # Safety
/// As memcpy(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's ranges.
    unsafe {
        asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags))
    };
    to
}

/// # Safety
/// As memmove(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= len {
        // SAFETY: the caller's ranges; copying upwards is right here.
        return unsafe { memcpy(to, from, len) };
    }
    // SAFETY: the caller's ranges, from their last byte; the direction flag is put back.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") len => _, inout("rdi") to.add(len).wrapping_sub(1) => _,
            inout("rsi") from.add(len).wrapping_sub(1) => _, options(nostack));
    }
    to
}

/// # Safety
/// As memset(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller's range.
    unsafe {
        asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8, options(nostack, preserves_flags))
    };
    to
}

/// # Safety
/// As memcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    for n in 0..len {
        // SAFETY: the caller's ranges. Volatile, or this loop would be compiled to a call of itself.
        let (x, y) = unsafe { (a.add(n).read_volatile(), b.add(n).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
    }
    0
}

/// # Safety
/// As memcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's ranges.
    unsafe { memcmp(a, b, len) }
}

/// # Safety
/// As strlen(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(at: *const u8) -> usize {
    let mut len = 0;
    // SAFETY: the caller's string. Volatile, or this loop would be compiled to a call of itself.
    while unsafe { at.add(len).read_volatile() } != 0 {
        len += 1;
    }
    len
}

/// Named by the unwinding tables of the compiled core library; a panic here ends the process instead.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

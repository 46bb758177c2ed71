//! Whether tiles may be used.

use std::arch::x86_64::*;

/// Whether processor and system save tiles and the processor multiplies int8 in them.
pub(super) fn has_tiles() -> bool {
    const AMX_TILE_AND_INT8: u32 = 0b11 << 24;
    const XCR0_TILES: u64 = 0b11 << 17;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & (1 << 27) == 0 {
        return false;
    }
    // SAFETY: bit 27 of leaf 1, OSXSAVE, says that the instruction exists.
    let xcr0 = unsafe { read_xcr0() };
    __cpuid_count(7, 0).edx & AMX_TILE_AND_INT8 == AMX_TILE_AND_INT8
        && xcr0 & XCR0_TILES == XCR0_TILES
}

#[target_feature(enable = "xsave")]
fn read_xcr0() -> u64 {
    // SAFETY: register 0 exists where the instruction does.
    unsafe { _xgetbv(0) }
}

/// Linux gives a process the room to save tiles only on request.
#[cfg(target_os = "linux")]
pub(super) fn ask_for_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory of ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            ARCH_REQ_XCOMP_PERM,
            XFEATURE_XTILEDATA,
        )
    };
    result == 0
}

#[cfg(not(target_os = "linux"))]
pub(super) fn ask_for_tiles() -> bool {
    false
}

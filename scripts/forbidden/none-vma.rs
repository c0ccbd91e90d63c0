// SPDX-License-Identifier: GPL-2.0
// error: none
//! The files that include this frame fail for their own code alone: this one compiles.

include!("frame/vma.rs");

fn prepare(_: &Mine, desc: &VmaDesc<MiscFile<Mine>>) -> Result {
    if desc.pgoff() != 0 {
        return Err(EINVAL);
    }
    Ok(())
}

kernel::static_assert!(core::mem::size_of::<Mapping>() > 0);

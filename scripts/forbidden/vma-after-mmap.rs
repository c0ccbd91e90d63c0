// SPDX-License-Identifier: GPL-2.0
// error: lifetime
//! A VMA that is being prepared cannot be kept for later.

include!("frame/vma.rs");

fn prepare<'a>(_: &Mine, desc: &'a VmaDesc<MiscFile<Mine>>) -> Result {
    let kept: &'static VmaDesc<MiscFile<Mine>> = desc;

    pr_info!("{}\n", kept.size());
    Ok(())
}

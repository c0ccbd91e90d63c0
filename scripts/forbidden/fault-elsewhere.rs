// SPDX-License-Identifier: GPL-2.0
// error: E0277
//! A fault cannot be handled by another thread.

include!("frame/vma.rs");

fn prepare(_: &Mine, _: &VmaDesc<MiscFile<Mine>>) -> Result {
    Ok(())
}

fn needs_send<T: Send>(_: T) {}

fn pass_on(fault: &VmFault) {
    needs_send(fault);
}

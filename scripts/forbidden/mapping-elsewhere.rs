// SPDX-License-Identifier: GPL-2.0
// error: E0277
//! Another thread cannot map pages in a new mapping.

include!("frame/vma.rs");

fn prepare(_: &Mine, _: &VmaDesc<MiscFile<Mine>>) -> Result {
    Ok(())
}

fn needs_send<T: Send>(_: T) {}

fn pass_on(mapping: &NewMapping) {
    needs_send(mapping);
}

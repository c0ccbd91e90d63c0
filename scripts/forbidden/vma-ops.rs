// SPDX-License-Identifier: GPL-2.0
// error: E0624
//! A driver cannot map device memory without taking it back when the device is unbound.

include!("frame/vma.rs");

fn prepare(me: &Mine, desc: &VmaDesc<MiscFile<Mine>>) -> Result {
    desc.set_p2pdma_ops::<Mapping>(me.0.pagemap())
}

// SPDX-License-Identifier: GPL-2.0
// error: E0500 E0501
//! An ioctl that uses the memory cannot lock another device.

include!("frame/node.rs");

fn nested(request: &mut Request<'_, Mine>, peer: &pci::Device) -> Result {
    request.enter(|_| request.enter_with_peer(peer, |_, _| Ok(())))
}

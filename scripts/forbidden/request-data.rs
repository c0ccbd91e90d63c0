// SPDX-License-Identifier: GPL-2.0
// error: lifetime
//! An ioctl cannot keep the registration data.

include!("frame/node.rs");

fn keep<'r>(request: &'r mut Request<'_, Mine>) -> Result<&'r pci::Device<Bound>> {
    request.enter(|pdev| Ok(*pdev))
}

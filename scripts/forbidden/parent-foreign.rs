// SPDX-License-Identifier: GPL-2.0
// error: E0277
//! A registration needs the device that the driver itself is bound to, as only callbacks of the
//! driver get it: the driver's code exists until that device is unbound.

include!("frame/node.rs");

fn register<'a>(
    parent: &'a pci::Device<Bound>,
    sources: &[Source<'a>],
) -> Result<Registration<'a, Mine>> {
    Registration::new(parent, sources, |pdev| Ok(pdev))
}

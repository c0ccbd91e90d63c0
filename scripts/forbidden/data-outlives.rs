// SPDX-License-Identifier: GPL-2.0
// error: lifetime
//! The data of a registration cannot borrow from what is gone before its parent is unbound.

include!("frame/node.rs");

fn register<'a>(
    pdev: &'a pci::Device<Core<'_>>,
    other: &'a pci::Device<Bound>,
    sources: &[Source<'a>],
) -> Result<Registration<'a, Mine>> {
    Registration::new(pdev, sources, |_| Ok(other))
}

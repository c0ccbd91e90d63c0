// SPDX-License-Identifier: GPL-2.0
// error: lifetime
//! A registration cannot be kept for longer than its parent is bound.

include!("frame/node.rs");

fn register<'a>(
    pdev: &'a pci::Device<Core<'_>>,
    sources: &[Source<'a>],
) -> Result<Registration<'static, Mine>> {
    Registration::new(pdev, sources, |pdev| Ok(pdev))
}

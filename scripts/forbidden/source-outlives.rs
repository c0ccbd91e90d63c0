// SPDX-License-Identifier: GPL-2.0
// error: lifetime
//! A registration cannot exist for longer than its memory.

include!("frame/node.rs");

fn register<'a>(
    pdev: &'a pci::Device<Core<'_>>,
    sources: &[Source<'_>],
) -> Result<Registration<'a, Mine>> {
    Registration::new(pdev, sources, |pdev| Ok(pdev))
}

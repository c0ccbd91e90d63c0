// SPDX-License-Identifier: GPL-2.0
// error: none
//! The files that include this frame fail for their own code alone: this one compiles.

include!("frame/node.rs");

fn register<'a>(
    pdev: &'a pci::Device<Core<'_>>,
    sources: &[Source<'a>],
) -> Result<Registration<'a, Mine>> {
    Registration::new(pdev, sources, |pdev| Ok(pdev))
}

fn ioctl(request: &mut Request<'_, Mine>, peer: &pci::Device) -> Result {
    request.enter(|_| Ok(()))?;
    request.enter_with_peer(peer, |_, _| Ok(()))
}

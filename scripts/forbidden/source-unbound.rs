// SPDX-License-Identifier: GPL-2.0
// error: E0277
//! A registration needs a parent that is a PCI function or its child on the auxiliary bus.

include!("frame/node.rs");

fn register<'a>(parent: &'a Device, sources: &[Source<'a>]) -> Result<Registration<'a, Mine>> {
    Registration::new(parent, sources, |_| Err(ENODEV))
}

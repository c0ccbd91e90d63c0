// SPDX-License-Identifier: GPL-2.0
// error: lifetime
//! A registration cannot be kept for longer than its parent is bound.

use kernel::{
    device::{Bound, Core},
    pci::{
        self,
        p2pdma::mmap::{Lockdown, Operations, Registration, Source},
    },
    prelude::*,
};

struct Mine;

#[vtable]
impl Operations for Mine {
    type RegistrationData<'a> = &'a pci::Device<Bound>;

    const NAME: &'static CStr = c"mine";
    const LOCKDOWN: Lockdown = Lockdown::Allow;
}

fn register<'a>(
    pdev: &'a pci::Device<Core<'_>>,
    sources: &[Source<'a>],
) -> Result<Registration<'static, Mine>> {
    Registration::new(pdev, sources, |pdev| Ok(pdev))
}

module! {
    type: Forbidden,
    name: "forbidden",
    description: "Is not run",
    license: "GPL v2",
}

struct Forbidden;

impl kernel::Module for Forbidden {
    fn init(_: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

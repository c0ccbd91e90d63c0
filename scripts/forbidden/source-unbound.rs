// SPDX-License-Identifier: GPL-2.0
// error: E0308
//! A registration needs a parent that is a PCI function.

use kernel::{
    device::Bound,
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
    parent: &'a kernel::device::Device,
    sources: &[Source<'a>],
) -> Result<Registration<'a, Mine>> {
    Registration::new(parent, sources, |_| Err(ENODEV))
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

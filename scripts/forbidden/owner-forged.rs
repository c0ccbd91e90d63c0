// SPDX-License-Identifier: GPL-2.0
// error: E0277
//! Only devices that callbacks of a bus have passed can own memory.

use kernel::{
    device::{Bound, Device},
    pci::{self, p2pdma::Owner},
    prelude::*,
};

struct Forged<'a>(&'a pci::Device<Bound>);

impl Owner for Forged<'_> {
    type Bound = pci::Device<Bound>;

    fn bound(&self) -> &pci::Device<Bound> {
        self.0
    }

    fn device(&self) -> &Device<Bound> {
        self.0.as_ref()
    }

    fn function(&self) -> Result<&pci::Device<Bound>> {
        Ok(self.0)
    }

    fn number(&self) -> Option<usize> {
        None
    }
}

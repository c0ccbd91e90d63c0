// SPDX-License-Identifier: GPL-2.0
// error: E0308
//! A domain is that of a device which is bound.

use kernel::{
    memremap::Pagemap,
    pci::{
        self,
        p2pdma::mmap::{Domain, PageAllocator},
    },
    prelude::*,
    sync::Arc,
};

fn domain<A: PageAllocator>(pdev: &pci::Device, pagemap: &Pagemap<A>) -> Result<Arc<Domain>> {
    Domain::new(pdev, &[pagemap.into()])
}

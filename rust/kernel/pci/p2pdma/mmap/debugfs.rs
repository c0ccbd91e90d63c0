// SPDX-License-Identifier: GPL-2.0

//! Files in debugfs.
//!
//! Nothing in here is generic. So the file operations are code of the kernel, not of a driver's
//! module. This matters as the abstraction of debugfs does not set the owner of file operations: a
//! module could be unloaded while one of its files is open.

use super::{
    domain::Domain,
    names::Name, //
};
use crate::{
    debugfs::{
        Dir,
        File, //
    },
    device,
    fmt,
    pci::{
        self,
        p2pdma::{
            distance,
            find,
            map_type,
            EndpointLock,
            MapType, //
        }, //
    },
    prelude::*,
    sync::Arc, //
};

/// The debugfs files of a registration.
#[pin_data]
pub(super) struct Debugfs {
    #[pin]
    memory: File<Arc<Domain>>,
    #[pin]
    peers: File<Arc<Domain>>,
    // Dropped after its files.
    _dir: Dir,
}

impl Debugfs {
    /// Creates the files `memory` and `peers` in the folder `p2pdma/NAME`.
    #[inline(never)]
    pub(super) fn new(name: &Name, domain: &Arc<Domain>) -> Result<Pin<KBox<Self>>> {
        let dir = name.folder()?;

        KBox::pin_init(
            try_pin_init!(Self {
                memory <- dir.read_callback_file(c"memory", domain.clone(), &show_memory),
                peers <- dir.read_callback_file(c"peers", domain.clone(), &show_peers),
                _dir: dir.clone(),
            }? Error),
            GFP_KERNEL,
        )
    }
}

/// Writes a line for each source: its name, size and usage.
fn show_memory(domain: &Arc<Domain>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    domain.show(f)
}

/// Writes a line for each PCI function that is bound to a driver and not locked by another task:
/// its name, its distance from the memory (-1 if it cannot reach the memory), the path of its DMA,
/// and the closest provider of published memory (`-` if there is none).
fn show_peers(domain: &Arc<Domain>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Ok(active) = domain.enter() else {
        return Ok(());
    };
    let Ok(own) = active.endpoint() else {
        return Ok(());
    };

    for pdev in pci::devices() {
        let pdev: &pci::Device = &pdev;
        let dev: &device::Device = pdev.as_ref();
        // Do not wait for the lock of any function: a task that unbinds `own` holds its lock while
        // it waits for this reader. `own` itself needs no lock here, as `active` keeps it bound.
        let lock = EndpointLock::try_new(pdev);
        let peer = match &lock {
            _ if own.is(pdev) => own,
            Some(lock) => lock.endpoint(),
            None => continue,
        };

        let distance = distance(own, &[peer], false).map_or(-1, i64::from);
        let map_type = match map_type(own, peer) {
            MapType::NotSupported => "not-supported",
            MapType::BusAddr => "bus-address",
            MapType::ThruHostBridge => "host-bridge",
        };

        f.write_fmt(fmt!("{} {distance} {map_type} ", dev.name()))?;
        match find(&[peer]) {
            Some(closest) => {
                let closest: &device::Device = (*closest).as_ref();

                f.write_fmt(fmt!("{}\n", closest.name()))?;
            }
            None => f.write_str("-\n")?,
        }
    }

    Ok(())
}

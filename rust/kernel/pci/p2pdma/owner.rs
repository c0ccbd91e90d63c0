// SPDX-License-Identifier: GPL-2.0

//! The devices whose drivers provide memory of a PCI function.

#[cfg(CONFIG_AUXILIARY_BUS)]
use crate::{
    auxiliary,
    bindings, //
};
use crate::{
    device::{
        Bound,
        Core,
        Device, //
    },
    pci,
    prelude::*, //
};

mod private {
    pub trait Sealed {}
}

/// A device whose driver provides memory of a PCI function: the function itself, or a child of it
/// on the auxiliary bus.
///
/// What the driver creates for a device exists until the device is unbound. For a child this is
/// before its parent is unbound: a bound auxiliary device has a bound parent.
///
/// Only the callbacks of the bus get such a device: see [`Core`].
pub trait Owner: private::Sealed {
    /// The type of the same device with the device context [`Bound`] instead of [`Core`].
    type Bound: 'static;

    /// Returns the same device with the device context [`Bound`] instead of [`Core`].
    fn bound(&self) -> &Self::Bound;

    /// Returns the device as a [`Device`].
    fn device(&self) -> &Device<Bound>;

    /// Returns the PCI function that has the memory.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the device is a child of something else than a PCI function.
    fn function(&self) -> Result<&pci::Device<Bound>>;

    /// Returns the id of the auxiliary device, or [`None`] for a PCI function.
    fn number(&self) -> Option<usize>;
}

impl private::Sealed for pci::Device<Core<'_>> {}

impl Owner for pci::Device<Core<'_>> {
    type Bound = pci::Device<Bound>;

    fn bound(&self) -> &pci::Device<Bound> {
        self
    }

    fn device(&self) -> &Device<Bound> {
        self.bound().as_ref()
    }

    fn function(&self) -> Result<&pci::Device<Bound>> {
        Ok(self)
    }

    fn number(&self) -> Option<usize> {
        None
    }
}

#[cfg(CONFIG_AUXILIARY_BUS)]
impl private::Sealed for auxiliary::Device<Core<'_>> {}

#[cfg(CONFIG_AUXILIARY_BUS)]
impl Owner for auxiliary::Device<Core<'_>> {
    type Bound = auxiliary::Device<Bound>;

    fn bound(&self) -> &auxiliary::Device<Bound> {
        self
    }

    fn device(&self) -> &Device<Bound> {
        self.bound().as_ref()
    }

    fn function(&self) -> Result<&pci::Device<Bound>> {
        self.bound().parent().try_into()
    }

    fn number(&self) -> Option<usize> {
        usize::try_from(self.id()).ok()
    }
}

#[cfg(CONFIG_AUXILIARY_BUS)]
impl auxiliary::Device<Core<'_>> {
    /// Returns the PCI function that is the parent, if its driver deletes the child before devres
    /// releases any resource of the function.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if the parent is no PCI function.
    /// - `EOPNOTSUPP` if the driver of the parent is written in C and has not called
    ///   `pci_p2pdma_lend()`.
    pub(super) fn lender(&self) -> Result<&pci::Device<Bound>> {
        let function = self.function()?;
        let parent: &Device<Bound> = function.as_ref();

        // SAFETY: `parent` is a valid device, which is bound.
        let driver = unsafe { (*parent.as_raw()).driver };
        // Only drivers in Rust set the field, and `auxiliary::delete_forgotten()` deletes the
        // children of their devices before devres releases anything.
        //
        // SAFETY: A driver exists for as long as a device is bound to it.
        let rust = !driver.is_null() && unsafe { (*driver).p_cb.post_unbind_rust }.is_some();
        // SAFETY: `function` is a valid device, which is bound.
        if !rust && !unsafe { bindings::pci_p2pdma_is_lent(function.as_raw()) } {
            dev_err!(
                parent,
                "the driver does not lend memory to its child devices\n"
            );
            return Err(EOPNOTSUPP);
        }
        Ok(function)
    }
}

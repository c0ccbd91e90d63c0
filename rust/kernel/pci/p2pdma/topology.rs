// SPDX-License-Identifier: GPL-2.0

//! The paths of peer-to-peer DMA between PCI functions.

use crate::{
    bindings,
    device,
    error::to_result,
    pci::Device,
    prelude::*,
    sync::aref::ARef,
    types::NotThreadSafe, //
};
use core::ptr::{
    self,
    NonNull, //
};

/// A PCI function that stays bound to its driver for the lifetime `'a`.
///
/// The functions about the path between two PCI functions require both to be bound. They walk up
/// the tree of buses. When a PCI function has been removed, devices above it may have been freed,
/// for example the physical function of a virtual function.
///
/// # Examples
///
/// ```
/// use kernel::pci::p2pdma::{
///     self,
///     Endpoint,
///     MapType, //
/// };
///
/// /// Picks the first peer that DMA from `own` can get to.
/// fn reachable<'a>(own: Endpoint<'_>, peers: &[Endpoint<'a>]) -> Option<Endpoint<'a>> {
///     peers
///         .iter()
///         .copied()
///         .find(|peer| p2pdma::map_type(own, *peer) != MapType::NotSupported)
/// }
/// ```
///
/// # Invariants
///
/// The device is embedded in a `struct pci_dev`, and bound for the lifetime `'a`.
#[derive(Copy, Clone)]
#[repr(transparent)]
pub struct Endpoint<'a>(&'a device::Device);

impl<'a> Endpoint<'a> {
    /// # Safety
    ///
    /// The function must be bound during `'a`.
    pub(super) unsafe fn new(pdev: &'a Device) -> Self {
        // INVARIANT: The caller promises that the function is bound during `'a`.
        Self(pdev.as_ref())
    }

    /// Returns whether this is that PCI function.
    pub(super) fn is(self, pdev: &Device) -> bool {
        ptr::eq::<device::Device>(self.0, pdev.as_ref())
    }
}

impl<'a> From<&'a Device<device::Bound>> for Endpoint<'a> {
    #[inline]
    fn from(pdev: &'a Device<device::Bound>) -> Self {
        // INVARIANT: The function is bound, as its context proves.
        Self(pdev.as_ref())
    }
}

/// A lock on a PCI function of any driver, which keeps the function from being unbound.
///
/// Hold it for a short time only: binding, unbinding and resetting the function wait for it. If the
/// lock is forgotten, unbinding the function waits forever.
///
/// # Invariants
///
/// The current task has locked the function, which is bound.
pub struct EndpointLock<'a> {
    pdev: &'a Device,
    _not_send: NotThreadSafe,
}

impl<'a> EndpointLock<'a> {
    /// Locks `pdev`, or returns [`None`] if it is not bound, or if another task has locked it.
    ///
    /// It does not wait for the lock. So code that the unbinding of `pdev` waits for may call it,
    /// too.
    ///
    /// C functions: `device_trylock()`, `device_is_bound()`. Process context only.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::pci::{
    ///     self,
    ///     p2pdma::EndpointLock, //
    /// };
    ///
    /// for pdev in pci::devices() {
    ///     if let Some(_lock) = EndpointLock::try_new(&pdev) {
    ///         assert!(EndpointLock::try_new(&pdev).is_none());
    ///     }
    /// }
    /// ```
    pub fn try_new(pdev: &'a Device) -> Option<Self> {
        let dev: &device::Device = pdev.as_ref();

        // SAFETY: `dev.as_raw()` is a valid pointer to a `struct device`.
        if unsafe { bindings::device_trylock(dev.as_raw()) } == 0 {
            return None;
        }
        // SAFETY: The function has just been locked.
        unsafe { Self::if_bound(pdev) }
    }

    /// Locks `pdev`, and waits for the lock if another task has it.
    ///
    /// It must not be called by code that the unbinding of a PCI function waits for: that could
    /// deadlock. Therefore it is not public; drivers use [`Request::enter_with_peer`].
    ///
    /// C functions: `device_lock_interruptible()`, `device_is_bound()`.
    ///
    /// # Errors
    ///
    /// - `EINTR` if a signal arrives while it waits.
    /// - `EBUSY` if the function has no driver.
    ///
    /// [`Request::enter_with_peer`]: super::mmap::Request::enter_with_peer
    pub(super) fn new_interruptible(pdev: &'a Device) -> Result<Self> {
        let dev: &device::Device = pdev.as_ref();

        // SAFETY: `dev.as_raw()` is a valid pointer to a `struct device`.
        to_result(unsafe { bindings::device_lock_interruptible(dev.as_raw()) })?;
        // SAFETY: The function has just been locked.
        unsafe { Self::if_bound(pdev) }.ok_or(EBUSY)
    }

    /// Returns a lock if `pdev` is bound, else unlocks it.
    ///
    /// # Safety
    ///
    /// The caller must have locked `pdev`. It passes the lock on.
    unsafe fn if_bound(pdev: &'a Device) -> Option<Self> {
        let dev: &device::Device = pdev.as_ref();

        // INVARIANT: The caller has locked the function. If it is not bound, `lock` is only dropped
        // below.
        let lock = Self {
            pdev,
            _not_send: NotThreadSafe,
        };

        // SAFETY: `dev.as_raw()` is a valid pointer to a `struct device`, which is locked.
        unsafe { bindings::device_is_bound(dev.as_raw()) }.then_some(lock)
    }

    /// Returns the function as an endpoint.
    #[inline]
    pub fn endpoint(&self) -> Endpoint<'_> {
        // INVARIANT: By the type invariant, the function is bound and locked. Unbinding takes the
        // lock, so the function stays bound until `self` is dropped.
        Endpoint(self.pdev.as_ref())
    }
}

impl Drop for EndpointLock<'_> {
    fn drop(&mut self) {
        let dev: &device::Device = self.pdev.as_ref();

        // SAFETY: By the type invariant, the current task has locked the device.
        unsafe { bindings::device_unlock(dev.as_raw()) };
    }
}

/// The path of DMA between a provider of peer-to-peer memory and a client.
///
/// C type: `enum pci_p2pdma_map_type`
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum MapType {
    /// There is no path: the DMA would have to pass through a host bridge that is not known to
    /// forward it. Mapping the memory for DMA by this client fails: with `EREMOTEIO` in the DMA
    /// API, with `EINVAL` in the block layer.
    NotSupported,

    /// Through switches only, with addresses of the PCI bus, see
    /// [`Mem::bus_address`](super::Mem::bus_address).
    BusAddr,

    /// Through the host bridge, with addresses that come from the DMA API like those of system
    /// memory.
    ThruHostBridge,
}

/// Returns the path of DMA by `client` to the memory of `provider`.
///
/// The result is [`MapType::NotSupported`] if `provider` has not been set up for peer-to-peer DMA.
/// Otherwise the PCI core stores the result for the client's bus, device and function number until
/// the provider is unbound, and DMA mappings use the stored value. When the PCI core determines it
/// for the first time, it logs what redirects or blocks the DMA.
///
/// C function: `pci_p2pdma_map_type()`. May sleep.
///
/// # Examples
///
/// ```
/// use kernel::pci::{
///     self,
///     p2pdma::{
///         self,
///         EndpointLock,
///         MapType, //
///     }, //
/// };
///
/// for pdev in pci::devices() {
///     let Some(lock) = EndpointLock::try_new(&pdev) else {
///         continue;
///     };
///     let pdev = lock.endpoint();
///
///     if p2pdma::distance(pdev, &[pdev], false).is_none() {
///         assert_eq!(p2pdma::map_type(pdev, pdev), MapType::NotSupported);
///     }
/// }
/// ```
// The C function is not exported to modules. So this must not be inlined into one.
#[inline(never)]
pub fn map_type(provider: Endpoint<'_>, client: Endpoint<'_>) -> MapType {
    let mut provider = bindings::p2pdma_provider {
        owner: provider.0.as_raw(),
        // `pci_p2pdma_map_type()` does not use this field.
        bus_offset: 0,
    };

    // SAFETY:
    // - `provider` is valid for the duration of the call. The function does not keep it, and only
    //   uses its `owner`, which is embedded in a `struct pci_dev` by the type invariant of
    //   `Endpoint`.
    // - `client.0.as_raw()` is a valid pointer to a `struct device`.
    // - By the type invariant of `Endpoint` both are bound. Hence all devices above them in the
    //   tree of buses exist.
    // - The function reads `pdev->p2pdma` of the owner under RCU. `pci_p2pdma_release()` waits for
    //   RCU readers before that is freed.
    match unsafe { bindings::pci_p2pdma_map_type(&mut provider, client.0.as_raw()) } {
        bindings::pci_p2pdma_map_type_PCI_P2PDMA_MAP_BUS_ADDR => MapType::BusAddr,
        bindings::pci_p2pdma_map_type_PCI_P2PDMA_MAP_THRU_HOST_BRIDGE => MapType::ThruHostBridge,
        _ => MapType::NotSupported,
    }
}

/// Returns the sum of the distances between `provider` and each of `clients`.
///
/// The distance between two functions is the number of steps between them in the tree of buses;
/// that of a function to itself is 0. The result is [`None`] if there are no clients, or if one of
/// them cannot do DMA to memory of `provider`. If `verbose` is set, the PCI core logs what blocks
/// the DMA.
///
/// C function: `pci_p2pdma_distance_many()`. May sleep.
///
/// # Examples
///
/// ```
/// use kernel::pci::{
///     self,
///     p2pdma::{
///         self,
///         EndpointLock, //
///     }, //
/// };
///
/// for pdev in pci::devices() {
///     let Some(lock) = EndpointLock::try_new(&pdev) else {
///         continue;
///     };
///     let pdev = lock.endpoint();
///
///     assert_eq!(p2pdma::distance(pdev, &[], false), None);
///     if let Some(distance) = p2pdma::distance(pdev, &[pdev, pdev], false) {
///         assert_eq!(distance, 0);
///     }
/// }
/// ```
pub fn distance(provider: Endpoint<'_>, clients: &[Endpoint<'_>], verbose: bool) -> Option<u32> {
    let provider = <&Device>::try_from(provider.0).ok()?;
    let num = c_int::try_from(clients.len()).ok()?;

    // SAFETY:
    // - `provider.as_raw()` is a valid pointer to a `struct pci_dev`.
    // - `Endpoint` is a transparent wrapper of a reference to `device::Device`, and that one of
    //   `struct device`, hence `clients` has the layout of an array of `num` valid pointers to
    //   these. The function does not write to it.
    // - By the type invariant of `Endpoint` all of them are PCI functions, and bound. Hence all
    //   that is above them in the tree of buses exists.
    let distance = unsafe {
        bindings::pci_p2pdma_distance_many(
            provider.as_raw(),
            clients.as_ptr().cast_mut().cast(),
            num,
            verbose,
        )
    };

    // The distance is negative if one of the clients cannot do DMA to the memory.
    u32::try_from(distance).ok()
}

/// Returns the provider of published memory that is closest to all of `clients`.
///
/// If several are equally close, one of them is chosen at random. The result is [`None`] if no
/// provider can be reached by all of `clients`, or if there is not enough memory to search. The
/// reference keeps the device from being freed, but not from being unbound.
///
/// C function: `pci_p2pmem_find_many()`. May sleep.
///
/// # Examples
///
/// ```
/// use kernel::pci::{
///     self,
///     p2pdma::{
///         self,
///         EndpointLock, //
///     }, //
/// };
///
/// assert!(p2pdma::find(&[]).is_none());
///
/// for pdev in pci::devices() {
///     let Some(lock) = EndpointLock::try_new(&pdev) else {
///         continue;
///     };
///     let Some(provider) = p2pdma::find(&[lock.endpoint()]) else {
///         continue;
///     };
///
///     // If a provider was found, there is a way to it.
///     let provider_lock = EndpointLock::try_new(&provider);
///     if let Some(provider) = &provider_lock {
///         assert!(p2pdma::distance(provider.endpoint(), &[lock.endpoint()], false).is_some());
///     }
/// }
/// ```
pub fn find(clients: &[Endpoint<'_>]) -> Option<ARef<Device>> {
    let num = c_int::try_from(clients.len()).ok()?;

    // SAFETY:
    // - `Endpoint` is a transparent wrapper of a reference to `device::Device`, and that one of
    //   `struct device`, hence `clients` has the layout of an array of `num` valid pointers to
    //   these. The function does not write to it.
    // - By the type invariant of `Endpoint` all of them are PCI functions, and bound. Hence all
    //   that is above them in the tree of buses exists.
    // - The function looks for the providers itself, and handles their lifetime.
    let pdev = unsafe { bindings::pci_p2pmem_find_many(clients.as_ptr().cast_mut().cast(), num) };

    // SAFETY: The function returns NULL, or a valid pointer together with a reference, which now
    // belongs to the `ARef`. `Device` is a transparent wrapper of `struct pci_dev`.
    NonNull::new(pdev).map(|pdev| unsafe { ARef::from_raw(pdev.cast()) })
}

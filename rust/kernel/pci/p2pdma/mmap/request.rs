// SPDX-License-Identifier: GPL-2.0

//! Ioctls of drivers.

use super::{
    context::Context,
    Operations, //
};
use crate::{
    ioctl::{
        _IOC_DIR,
        _IOC_SIZE, //
    },
    pci::{
        self,
        p2pdma::{
            Endpoint,
            EndpointLock, //
        }, //
    },
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    },
    uapi, //
};
use core::marker::PhantomData;

/// The largest argument of an ioctl, in bytes.
pub(super) const MAX_ARG: usize = 128;

/// A call of `ioctl()` on an open file, with a copy of its argument.
pub struct Request<'r, T> {
    context: &'r Context,
    cmd: u32,
    arg: &'r mut [u8],
    _operations: PhantomData<fn() -> T>,
}

impl<T: Operations> Request<'_, T> {
    /// Handles an ioctl of a file that is open: copies the argument, calls `T::ioctl`, and copies
    /// the argument back.
    pub(super) fn handle(context: &Context, cmd: u32, arg: usize) -> Result<isize> {
        if !T::IOCTLS.contains(&cmd) {
            return Err(ENOTTY);
        }

        let mut buffer = [0u8; MAX_ARG];
        let buffer = buffer.get_mut(.._IOC_SIZE(cmd)).ok_or(ENOTTY)?;
        let (mut reader, mut writer) =
            UserSlice::new(UserPtr::from_addr(arg), buffer.len()).reader_writer();

        if _IOC_DIR(cmd) & uapi::_IOC_WRITE != 0 {
            reader.read_slice(buffer)?;
        }
        let mut request = Request::<T> {
            context,
            cmd,
            arg: buffer,
            _operations: PhantomData,
        };

        T::ioctl(&mut request)?;
        if _IOC_DIR(cmd) & uapi::_IOC_READ != 0 {
            writer.write_slice(request.arg)?;
        }
        Ok(0)
    }

    /// Returns the number of the ioctl, one of `T::IOCTLS`.
    #[inline]
    pub fn cmd(&self) -> u32 {
        self.cmd
    }

    /// Returns the field at byte `offset` of the argument.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such field.
    pub fn get<U: FromBytes + Copy>(&self, offset: usize) -> Result<U> {
        let bytes = self.arg.get(offset..).ok_or(EINVAL)?;

        U::from_bytes_copy(bytes.get(..size_of::<U>()).ok_or(EINVAL)?).ok_or(EINVAL)
    }

    /// Sets the field at byte `offset` of the argument.
    ///
    /// The argument is copied to user space if the ioctl succeeds and its number has `_IOC_READ`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such field.
    pub fn set<U: AsBytes>(&mut self, offset: usize, value: U) -> Result {
        let bytes = self.arg.get_mut(offset..).ok_or(EINVAL)?;

        bytes
            .get_mut(..size_of::<U>())
            .ok_or(EINVAL)?
            .copy_from_slice(value.as_bytes());
        Ok(())
    }

    /// Calls `f` with the registration data, which stay valid during the call.
    ///
    /// This takes `&mut self`, so that `f` cannot call [`Request::enter_with_peer`], which would
    /// wait for the lock of another device while unbinding waits for `f`.
    ///
    /// Dropping the registration, and hence unbinding the device, waits for `f`. So `f` must
    /// neither access user memory, nor wait for user space, nor take the lock of the device or of
    /// its parent, nor drop the registration.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the registration has been dropped, and the errors of `f`.
    pub fn enter<R>(
        &mut self,
        f: impl for<'d, 'a> FnOnce(&'d T::RegistrationData<'a>) -> Result<R>,
    ) -> Result<R> {
        let active = self.context.domain().enter()?;

        // SAFETY: The context is that of a file of `Node<T>`. So `Registration::<T>::new` has
        // created its domain.
        unsafe { active.with_data::<T, _>(f) }
    }

    /// Like [`Request::enter`], with another PCI function, which stays bound during the call.
    ///
    /// This locks `peer`, and waits for the lock if another task has it. It takes the lock before
    /// it enters: otherwise two devices that query each other while both are being unbound could
    /// deadlock.
    ///
    /// # Errors
    ///
    /// `EBUSY` if `peer` has no driver, `EINTR` if a signal arrives while it waits, and those of
    /// [`Request::enter`].
    pub fn enter_with_peer<R>(
        &mut self,
        peer: &pci::Device,
        f: impl for<'d, 'a> FnOnce(&'d T::RegistrationData<'a>, Endpoint<'_>) -> Result<R>,
    ) -> Result<R> {
        let lock = EndpointLock::new_interruptible(peer)?;

        self.enter(|data| f(data, lock.endpoint()))
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Allocation of naturally aligned blocks, without locks.
//!
//! A [`BlockMap`] records which units are in use, and allocates them as [`Block`]s: naturally
//! aligned blocks whose size is a power of two. The map deals with the indices of units only. The
//! units are usually pages of device memory; a block of them can become a folio.
//!
//! The last reference to such a page may be dropped in hard interrupt context, or with interrupts
//! disabled even on `PREEMPT_RT`. The page has to be freed there, where code cannot take a
//! `spinlock_t`. Therefore the map has no locks.
//!
//! # Examples
//!
//! ```
//! use kernel::mm::block_map::{
//!     Block,
//!     BlockMap, //
//! };
//!
//! let map = BlockMap::new(100, GFP_KERNEL)?;
//!
//! let large = map.alloc(6).ok_or(ENOSPC)?;
//! assert_eq!(large.range(), 0..64);
//! assert_eq!(map.alloc(6), None);
//! assert_eq!(map.alloc_up_to(6), Block::new(64, 5));
//!
//! map.claim(Block::new(97, 0).ok_or(EINVAL)?)?;
//! assert_eq!(map.claim(Block::new(96, 1).ok_or(EINVAL)?), Err(EBUSY));
//!
//! map.free(large)?;
//! assert_eq!(map.free(large), Err(EINVAL));
//! assert_eq!(map.used(), 32 + 1);
//! # Ok::<(), Error>(())
//! ```

use self::chunk::{
    claim_chunks,
    free_chunks,
    Chunk,
    CHUNK_ORDER,
    CHUNK_UNITS, //
};
use crate::{
    alloc::Flags,
    pr_warn_once,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};
use core::ops::Range;

mod chunk;
#[cfg(CONFIG_RUST_BLOCK_MAP_KUNIT_TEST)]
mod tests;

/// A naturally aligned block of `2^order` units.
///
/// A block is only a pair of numbers. It does not own the units, see [`BlockMap::free`].
///
/// # Invariants
///
/// - `order` is less than `usize::BITS`.
/// - `first` is a multiple of `2^order`.
/// - `first + 2^order` does not overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    first: usize,
    order: u32,
}

impl Block {
    /// Creates the block of `2^order` units that starts at unit `first`.
    ///
    /// Returns [`None`] if this block is not naturally aligned, or if its end exceeds a `usize`.
    pub fn new(first: usize, order: u32) -> Option<Self> {
        let nr_units = 1usize.checked_shl(order)?;
        first.checked_add(nr_units)?;

        // INVARIANT: `checked_shl()` returns `None` unless `order` is less than `usize::BITS`.
        first
            .is_multiple_of(nr_units)
            .then_some(Self { first, order })
    }

    /// Returns the index of the first unit.
    #[inline]
    pub fn first(self) -> usize {
        self.first
    }

    /// Returns the order, which is the logarithm to base 2 of the number of units.
    #[inline]
    pub fn order(self) -> u32 {
        self.order
    }

    /// Returns the number of units.
    #[inline]
    pub fn nr_units(self) -> usize {
        1 << self.order
    }

    /// Returns the indices of the units.
    #[inline]
    pub fn range(self) -> Range<usize> {
        self.first..self.first + self.nr_units()
    }
}

/// Kept out of [`BlockMap::free`], which is called often.
#[cold]
#[inline(never)]
fn warn_not_in_use(block: Block) -> Error {
    pr_warn_once!("block map: freed {:?} that is not in use\n", block);
    EINVAL
}

/// A map that records which units are in use, and allocates naturally aligned blocks of them.
///
/// The map takes one bit for each unit, and an eighth of that for counters. Any number of callers
/// may use it at once, in any context except NMI: only [`BlockMap::new`] allocates memory, and no
/// method takes a lock.
///
/// # Forward progress
///
/// All methods are lock-free: they repeat a step only if another caller has changed the same word,
/// or if a word turns out to be in use in part.
///
/// - An allocation searches the map once. It misses a block that another caller frees after the
///   search has passed it.
/// - Before the units of a block are claimed, a counter for each `8 * BITS_PER_LONG` units counts
///   them as in use. If the block turns out to be in use, they are subtracted again. Until then, an
///   allocation can miss other units of this counter, and a claim can fail for them, although they
///   are free.
/// - A block of exactly `8 * BITS_PER_LONG` units is claimed in one step. A larger block is claimed
///   in steps of that size, and a smaller one of more than `BITS_PER_LONG` units word by word. If
///   one of these parts turns out to be in use, those before it are freed again. Until then, other
///   callers cannot get them.
///
/// # Ordering
///
/// Allocating and claiming have acquire semantics if they succeed, and freeing has release
/// semantics: what the previous owner of a unit did before freeing it happens before what the next
/// owner does. This holds even if other units of the same word, or of the same counter, were
/// allocated or freed in between: both are only changed by atomic read-modify-write operations.
///
/// This orders memory accesses by processors. Before units are freed, DMA to them must have ended,
/// and write-combined writes to them must have been flushed.
///
/// # Invariants
///
/// - `chunks` has `len.div_ceil(CHUNK_UNITS)` elements. Unit `i` is a unit of the chunk
///   `i / CHUNK_UNITS`.
/// - The bits from `len` on belong to no unit, and always count as in use.
pub struct BlockMap {
    chunks: KVVec<Chunk>,
    len: usize,
    /// The chunk at which a search starts. All chunks below it are full, unless a race has left it
    /// too high.
    hint: Atomic<usize>,
}

impl BlockMap {
    /// Creates a map of `nr_units` units, all of which are free.
    pub fn new(nr_units: usize, flags: Flags) -> Result<Self> {
        let nr_chunks = nr_units.div_ceil(CHUNK_UNITS);
        let mut chunks = KVVec::with_capacity(nr_chunks, flags)?;

        for i in 0..nr_chunks {
            chunks.push(Chunk::new(nr_units - i * CHUNK_UNITS), flags)?;
        }

        // INVARIANT: In the last of the `nr_chunks` chunks, the bits from `nr_units` on are in use.
        Ok(Self {
            chunks,
            len: nr_units,
            hint: Atomic::new(0),
        })
    }

    /// Returns the number of units of the map, in use or not.
    #[inline]
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of units in use. This adds up the counters of all chunks.
    ///
    /// Units that other callers allocate, claim or free at the same time may be counted or not,
    /// even if a claim fails.
    pub fn used(&self) -> usize {
        let used: usize = self.chunks.iter().map(Chunk::used).sum();

        // The bits that belong to no unit are counted as in use.
        used.saturating_sub(self.chunks.len() * CHUNK_UNITS - self.len)
    }

    /// Returns whether at least `nr_units` units are free. They need not be a block.
    ///
    /// If there are enough free units, this takes less time than [`BlockMap::used`].
    pub fn has_free(&self, nr_units: usize) -> bool {
        let hint = self.hint.load(Relaxed).min(self.chunks.len());
        let (below, above) = self.chunks.split_at(hint);
        let mut free = 0;

        // Most of the free units are above the hint.
        for chunk in [above, below].into_iter().flatten() {
            if free >= nr_units {
                break;
            }
            free += CHUNK_UNITS - chunk.used();
        }
        free >= nr_units
    }

    /// Returns whether all units of a block are free.
    ///
    /// If so, each of them was free at some moment during the call, not necessarily at the same
    /// moment. What the previous owners of the units did before freeing them happens before this
    /// returns. Other callers can allocate the units at any time. The result can be `false`
    /// although the units are free if others use the same chunk of the map.
    pub fn is_free(&self, block: Block) -> bool {
        if block.order < CHUNK_ORDER {
            self.chunk_of(block)
                .is_some_and(|chunk| chunk.has_free(block))
        } else {
            self.chunks_of(block)
                .is_some_and(|chunks| chunks.iter().all(|chunk| chunk.count_acquire() == 0))
        }
    }

    /// Allocates a block of `2^order` units.
    ///
    /// The result is usually the lowest free block. It can be a higher one if several callers use
    /// the map, or have used it at the same time before. So small blocks stay together and leave
    /// room for large ones.
    ///
    /// Returns [`None`] if no free block is found. [`BlockMap`] describes when a free block is
    /// missed.
    pub fn alloc(&self, order: u32) -> Option<Block> {
        if 1usize.checked_shl(order)? > self.len {
            return None;
        }

        // A block is a part of one chunk, or consists of one or several whole chunks.
        let chunks_order = order.saturating_sub(CHUNK_ORDER);
        let alloc_at = |i: usize| {
            let chunk = i << chunks_order;
            let first = if order < CHUNK_ORDER {
                self.chunks.get(chunk)?.alloc(order)?
            } else {
                let chunks = self.chunks.get(chunk..chunk + (1 << chunks_order))?;

                claim_chunks(chunks).then_some(0)?
            };

            // INVARIANT: This is a naturally aligned block of units of the map.
            Some(Block {
                first: chunk * CHUNK_UNITS + first,
                order,
            })
        };

        // The chunk of the hint serves most allocations.
        let hint = self.hint.load(Relaxed);
        let start = hint.div_ceil(1 << chunks_order);
        if let Some(block) = alloc_at(start) {
            return Some(block);
        }

        // The hint may be too high, so search below it as well.
        let mut above = start + 1..self.chunks.len() >> chunks_order;
        let mut below = 0..start;
        let block = above
            .find_map(alloc_at)
            .or_else(|| below.find_map(alloc_at));

        match block {
            Some(block) if block.first / CHUNK_UNITS < hint => self.lower_hint(block),
            _ => self.raise_hint(hint),
        }
        block
    }

    /// Allocates the largest free block of at most `2^order` units.
    ///
    /// Returns [`None`] if not even a single unit is found. This may search the map once for each
    /// order. Callers that want several blocks should not ask for a larger order than that of the
    /// block before.
    pub fn alloc_up_to(&self, order: u32) -> Option<Block> {
        self.alloc(order).or_else(|| {
            // `used()` may be too high while others use the map, so search for one unit in any
            // case.
            let free = self.len.saturating_sub(self.used()).max(1);
            let mut orders = (0..order.min(free.ilog2() + 1)).rev();

            orders.find_map(|order| self.alloc(order))
        })
    }

    /// Claims a given block.
    ///
    /// # Errors
    ///
    /// - `EINVAL` if the block is not within the map.
    /// - `EBUSY` if a unit of the block is in use, or if another caller has counted units for a
    ///   claim that is about to fail. No unit has been claimed then.
    pub fn claim(&self, block: Block) -> Result {
        let claimed = if block.order < CHUNK_ORDER {
            self.chunk_of(block).ok_or(EINVAL)?.claim(block)
        } else {
            claim_chunks(self.chunks_of(block).ok_or(EINVAL)?)
        };

        if claimed {
            Ok(())
        } else {
            Err(EBUSY)
        }
    }

    /// Frees a block.
    ///
    /// The caller must own all units of the block. It may have allocated them as other blocks.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the block is not within the map, or if a unit of it is found not to be in use.
    /// The first time, this logs a warning. No unit has been freed then, unless other callers
    /// change the state of units of the block at the same time.
    ///
    /// The map does not know the owners of units, so it does not find all errors of callers. If a
    /// caller frees units that it does not own while others use the map, units may be lost or get
    /// two owners.
    pub fn free(&self, block: Block) -> Result {
        let freed = if block.order < CHUNK_ORDER {
            self.chunk_of(block).map_or(0, |chunk| chunk.free(block))
        } else {
            self.chunks_of(block).map_or(0, free_chunks)
        };

        if freed != block.nr_units() {
            return Err(warn_not_in_use(block));
        }

        self.lower_hint(block);
        Ok(())
    }

    /// Returns the chunk of a block whose order is less than [`CHUNK_ORDER`], or [`None`] if the
    /// block is not within the map.
    fn chunk_of(&self, block: Block) -> Option<&Chunk> {
        if block.range().end > self.len {
            return None;
        }
        self.chunks.get(block.first / CHUNK_UNITS)
    }

    /// Returns the chunks of a block whose order is at least [`CHUNK_ORDER`], or [`None`] if the
    /// block is not within the map.
    fn chunks_of(&self, block: Block) -> Option<&[Chunk]> {
        let Range { start, end } = block.range();

        if end > self.len {
            return None;
        }
        self.chunks.get(start / CHUNK_UNITS..end / CHUNK_UNITS)
    }

    /// Moves the hint past chunks that are full, unless it is not `old` any more.
    fn raise_hint(&self, old: usize) {
        let mut hint = old;

        while self.chunks.get(hint).is_some_and(Chunk::is_full) {
            hint += 1;
        }
        // If this fails, another caller has moved the hint.
        if hint != old {
            let _ = self.hint.cmpxchg(old, hint, Relaxed);
        }
    }

    /// Moves the hint down to the first chunk of a block, unless it is there or below already.
    fn lower_hint(&self, block: Block) {
        let chunk = block.first / CHUNK_UNITS;
        let mut hint = self.hint.load(Relaxed);

        while chunk < hint {
            hint = self
                .hint
                .cmpxchg(hint, chunk, Relaxed)
                .err()
                .unwrap_or(chunk);
        }
    }
}

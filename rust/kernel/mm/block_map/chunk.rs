// SPDX-License-Identifier: GPL-2.0

//! The parts of a [`BlockMap`](super::BlockMap), of 512 units each on 64-bit machines.

use super::Block;
use crate::sync::atomic::{
    Acquire,
    Atomic,
    Relaxed,
    Release, //
};

/// The number of units in a word of the map.
pub(super) const WORD_UNITS: usize = usize::BITS as usize;

/// The order of a block that fills a word of the map.
pub(super) const WORD_ORDER: u32 = usize::BITS.ilog2();

/// The number of words in a [`Chunk`]. A chunk has 512 units on 64-bit machines: if the units are
/// pages of 4 KiB, this is 2 MiB, the size of a large folio.
const CHUNK_WORDS: usize = 8;

/// The number of units in a [`Chunk`].
pub(super) const CHUNK_UNITS: usize = CHUNK_WORDS * WORD_UNITS;

/// The order of a block that fills a [`Chunk`].
pub(super) const CHUNK_ORDER: u32 = CHUNK_UNITS.ilog2();

/// Returns a word with the lowest `2^order` bits set. `order` is at most [`WORD_ORDER`].
fn low_bits(order: u32) -> usize {
    usize::MAX >> (usize::BITS - (1 << order))
}

/// Returns the lowest bit at which a naturally aligned block of `order` is free in the word `used`.
/// `order` is at most [`WORD_ORDER`].
fn find_free(used: usize, order: u32) -> Option<u32> {
    let mut free = !used;

    // Before each round, the set bits are those at which a run of `2^i` free units starts.
    for i in 0..order {
        free &= free >> (1 << i);
    }
    // In the quotient, each bit whose number is a multiple of `2^order` is set.
    free &= usize::MAX / low_bits(order);

    (free != 0).then(|| free.trailing_zeros())
}

/// Marks the units of `mask` in a word as in use if all of them are free, and returns whether they
/// were.
///
/// Here and in the functions below, `flip` is what [`Chunk::flip`] returns.
fn claim_bits(word: &Atomic<usize>, mask: usize, flip: usize) -> bool {
    // A guess: all units of the word are free.
    let mut value = flip;

    while (value ^ flip) & mask == 0 {
        match word.cmpxchg(value, value ^ mask, Acquire) {
            Ok(_) => return true,
            Err(now) => value = now,
        }
    }

    false
}

/// Marks the units of `mask` in a word as free if all of them are in use, and returns whether they
/// were.
fn free_bits(word: &Atomic<usize>, mask: usize, flip: usize) -> bool {
    let mut value = word.load(Relaxed);

    while (value ^ flip) & mask == mask {
        match word.cmpxchg(value, value ^ mask, Release) {
            Ok(_) => return true,
            Err(now) => value = now,
        }
    }

    false
}

/// Claims the lowest free block of `order` in a word, and returns its first bit. `order` is at most
/// [`WORD_ORDER`].
fn alloc_bits(word: &Atomic<usize>, order: u32, flip: usize) -> Option<u32> {
    let mut value = word.load(Relaxed);

    loop {
        let bit = find_free(value ^ flip, order)?;

        match word.cmpxchg(value, value ^ low_bits(order) << bit, Acquire) {
            Ok(_) => return Some(bit),
            Err(now) => value = now,
        }
    }
}

/// Marks all units of a word as in use if all of them are free, and returns whether they were.
pub(super) fn claim_word(word: &Atomic<usize>, flip: usize) -> bool {
    word.cmpxchg(flip, !flip, Acquire).is_ok()
}

/// Marks all units of a word as free if all of them are in use, and returns whether they were.
pub(super) fn free_word(word: &Atomic<usize>, flip: usize) -> bool {
    word.cmpxchg(!flip, flip, Release).is_ok()
}

/// Claims items, which are words or chunks, if all of them are free, and returns whether they were.
/// If not, it frees the items again that it has claimed.
//
// Two callers cannot both fail because of each other. Of two blocks that overlap, one contains the
// other, as they are naturally aligned. Items are claimed upwards and freed downwards, so what a
// caller has claimed is always the beginning of its block. Two callers hence meet at the first item
// of the smaller block: one of them gets it and goes on, and only the other fails. If the smaller
// block is a part of one item, its owner has it.
pub(super) fn claim_all<T>(
    items: &[T],
    claim: impl Fn(&T) -> bool,
    free: impl Fn(&T) -> bool,
) -> bool {
    let nr_claimed = items.iter().take_while(|item| claim(item)).count();

    if nr_claimed == items.len() {
        return true;
    }
    for item in items.iter().take(nr_claimed).rev() {
        free(item);
    }
    false
}

/// Claims whole words like [`claim_all`], but looks at all of them first: claiming words in vain
/// could make other callers fail.
fn claim_words(words: &[Atomic<usize>], flip: usize) -> bool {
    words.iter().all(|word| word.load(Relaxed) == flip)
        && claim_all(words, |w| claim_word(w, flip), |w| free_word(w, flip))
}

/// Does the same as [`claim_words`] with whole chunks.
pub(super) fn claim_chunks(chunks: &[Chunk]) -> bool {
    match chunks {
        // `claim_whole()` checks that the chunk is free.
        [chunk] => chunk.claim_whole(),
        _ => {
            chunks.iter().all(Chunk::is_free)
                && claim_all(chunks, Chunk::claim_whole, Chunk::free_whole)
        }
    }
}

/// Frees whole chunks, and returns how many units of them have been freed. If a unit is not in use,
/// no units are freed.
pub(super) fn free_chunks(chunks: &[Chunk]) -> usize {
    let nr_freed = match chunks {
        // `free_whole()` checks that the chunk is full.
        [chunk] => usize::from(chunk.free_whole()),
        _ if chunks.iter().all(Chunk::is_full) => {
            chunks.iter().take_while(|chunk| chunk.free_whole()).count()
        }
        _ => 0,
    };

    nr_freed << CHUNK_ORDER
}

/// [`CHUNK_UNITS`] units of the map.
///
/// A block that has all units of a chunk is claimed and freed by one change of `state`. This does
/// not touch the words, but changes what their bits mean.
///
/// # Invariants
///
/// - [`Self::count`] of `state` is at most [`CHUNK_UNITS`]. It is the number of units that are in
///   use, or that callers are about to claim, or have just freed.
/// - A unit is in use if its bit in `words` differs from bit [`Self::FLIPPED`] of `state`. This bit
///   changes only when the count changes from 0 to [`CHUNK_UNITS`] or back in one step. So for as
///   long as a caller has units that are counted, its meaning does not change.
pub(super) struct Chunk {
    pub(super) state: Atomic<usize>,
    pub(super) words: [Atomic<usize>; CHUNK_WORDS],
}

impl Chunk {
    /// The bit of `state` above the count. If it is set, the bits of units in use are clear.
    const FLIPPED: usize = 2 * CHUNK_UNITS;

    /// What has to be changed in `state` to claim or to free all units.
    const WHOLE: usize = Self::FLIPPED | CHUNK_UNITS;

    /// Creates a chunk whose first `nr_free` units are free, or all of them if `nr_free` is larger
    /// than [`CHUNK_UNITS`]. The other bits belong to no unit, and count as in use.
    pub(super) fn new(nr_free: usize) -> Self {
        let nr_free = nr_free.min(CHUNK_UNITS);
        let word = |i: usize| match nr_free.saturating_sub(i * WORD_UNITS) {
            left @ 0..WORD_UNITS => usize::MAX << left,
            _ => 0,
        };

        // INVARIANT: `FLIPPED` is clear, and the bits from `nr_free` on are set.
        Self {
            state: Atomic::new(CHUNK_UNITS - nr_free),
            words: core::array::from_fn(|i| Atomic::new(word(i))),
        }
    }

    /// Returns the number of units that are counted in a state.
    fn count(state: usize) -> usize {
        state % Self::FLIPPED
    }

    /// Returns the value of a word of which all units are free.
    pub(super) fn flip(state: usize) -> usize {
        // The quotient is 0 or 1. The subtraction turns 0 into no bits, and 1 into all bits.
        0usize.wrapping_sub(state / Self::FLIPPED)
    }

    /// Returns how many units are counted as in use.
    pub(super) fn used(&self) -> usize {
        // Callers that free units which they do not own can make the count too large.
        Self::count(self.state.load(Relaxed)).min(CHUNK_UNITS)
    }

    /// Like [`Self::used`], with acquire semantics.
    pub(super) fn count_acquire(&self) -> usize {
        Self::count(self.state.load(Acquire))
    }

    pub(super) fn is_free(&self) -> bool {
        self.used() == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.used() == CHUNK_UNITS
    }

    /// Counts `nr_units` units as in use, which the caller is about to claim, and returns
    /// [`Self::flip`]. Returns [`None`] if there are not enough free units.
    fn reserve(&self, nr_units: usize) -> Option<usize> {
        let mut state = self.state.load(Relaxed);

        while Self::count(state) + nr_units <= CHUNK_UNITS {
            match self.state.cmpxchg(state, state + nr_units, Acquire) {
                Ok(_) => return Some(Self::flip(state)),
                Err(now) => state = now,
            }
        }

        None
    }

    /// Undoes [`Self::reserve`].
    fn unreserve(&self, nr_units: usize) {
        self.state.fetch_sub(nr_units, Release);
    }

    /// Returns whether a block is free, unless other callers change that.
    fn has_free_block(&self, order: u32) -> bool {
        let flip = Self::flip(self.state.load(Relaxed));
        let is_free = |word: &Atomic<usize>| word.load(Relaxed) == flip;

        if order <= WORD_ORDER {
            let mut words = self.words.iter();

            words.any(|word| find_free(word.load(Relaxed) ^ flip, order).is_some())
        } else {
            let mut parts = self.words.chunks_exact(1 << (order - WORD_ORDER));

            parts.any(|words| words.iter().all(is_free))
        }
    }

    /// Allocates the lowest free block, and returns its first unit. `order` is less than
    /// [`CHUNK_ORDER`].
    pub(super) fn alloc(&self, order: u32) -> Option<usize> {
        // Reserving units in vain could make other callers fail. If one unit can be reserved, it is
        // usually free.
        if order > 0 && !self.has_free_block(order) {
            return None;
        }

        let flip = self.reserve(1 << order)?;
        let first = if order <= WORD_ORDER {
            let mut words = self.words.iter().enumerate();

            // CAST: A bit is less than `usize::BITS`.
            words.find_map(|(i, word)| {
                alloc_bits(word, order, flip).map(|bit| i * WORD_UNITS + bit as usize)
            })
        } else {
            let mut parts = self.words.chunks_exact(1 << (order - WORD_ORDER));

            parts
                .position(|words| claim_words(words, flip))
                .map(|i| i << order)
        };

        if first.is_none() {
            self.unreserve(1 << order);
        }
        first
    }

    /// Returns the word of a block whose order is at most [`WORD_ORDER`], and the bits of the block
    /// in it.
    fn bits(&self, block: Block) -> (&Atomic<usize>, usize) {
        let first = block.first % CHUNK_UNITS;

        // PANIC: `first` is less than `CHUNK_UNITS`.
        let word = &self.words[first / WORD_UNITS];
        (word, low_bits(block.order) << (first % WORD_UNITS))
    }

    /// Returns the words of a block whose order is more than [`WORD_ORDER`] and less than
    /// [`CHUNK_ORDER`].
    fn words(&self, block: Block) -> &[Atomic<usize>] {
        let first = block.first % CHUNK_UNITS / WORD_UNITS;

        // PANIC: The block is naturally aligned and smaller than a chunk, so it is within one.
        &self.words[first..first + block.nr_units() / WORD_UNITS]
    }

    /// Returns whether all units of a block of this chunk are free, see
    /// [`BlockMap::is_free`](super::BlockMap::is_free). The order must be less than
    /// [`CHUNK_ORDER`].
    pub(super) fn has_free(&self, block: Block) -> bool {
        let state = self.state.load(Acquire);
        let flip = Self::flip(state);
        let is_free = |word: &Atomic<usize>, mask| (word.load(Acquire) ^ flip) & mask == 0;
        let free = if block.order <= WORD_ORDER {
            let (word, mask) = self.bits(block);

            is_free(word, mask)
        } else {
            self.words(block)
                .iter()
                .all(|word| is_free(word, usize::MAX))
        };

        // The bits change their meaning only when all units are in use or free at once, which
        // changes the state. If the state is the same again, the whole chunk has been free
        // meanwhile, and this load sees what happened before.
        free && self.state.load(Acquire) == state
    }

    /// Claims a block of this chunk, and returns whether all its units were free. The order must be
    /// less than [`CHUNK_ORDER`].
    pub(super) fn claim(&self, block: Block) -> bool {
        let Some(flip) = self.reserve(block.nr_units()) else {
            return false;
        };
        let claimed = if block.order <= WORD_ORDER {
            let (word, mask) = self.bits(block);

            claim_bits(word, mask, flip)
        } else {
            claim_words(self.words(block), flip)
        };

        if !claimed {
            self.unreserve(block.nr_units());
        }
        claimed
    }

    /// Frees a block of this chunk, and returns how many units of it have been freed. The order
    /// must be less than [`CHUNK_ORDER`].
    pub(super) fn free(&self, block: Block) -> usize {
        // The caller owns the units of the block. So they are counted, and the meaning of the bits
        // does not change until they are freed.
        let flip = Self::flip(self.state.load(Relaxed));
        let freed = if block.order <= WORD_ORDER {
            let (word, mask) = self.bits(block);

            if !free_bits(word, mask, flip) {
                return 0;
            }
            block.nr_units()
        } else {
            let words = self.words(block);

            // Look at all words first, so that nothing is freed if a unit is not in use.
            if !words.iter().all(|word| word.load(Relaxed) == !flip) {
                return 0;
            }
            words.iter().take_while(|w| free_word(w, flip)).count() << WORD_ORDER
        };

        self.unreserve(freed);
        freed
    }

    /// Claims all units if all of them are free, and returns whether they were.
    pub(super) fn claim_whole(&self) -> bool {
        let state = self.state.load(Relaxed);

        // INVARIANT: The count is 0, so all units are free, and nobody is about to claim one. All
        // of their bits are the same, and now mean that all units are in use.
        Self::count(state) == 0
            && self
                .state
                .cmpxchg(state, state ^ Self::WHOLE, Acquire)
                .is_ok()
    }

    /// Frees all units if all of them are in use, and returns whether they were.
    pub(super) fn free_whole(&self) -> bool {
        let state = self.state.load(Relaxed);

        // INVARIANT: The count says that all units are in use. The caller owns them, so nobody else
        // claims or frees one. All of their bits are the same, and now mean that all units are
        // free.
        Self::count(state) == CHUNK_UNITS
            && self
                .state
                .cmpxchg(state, state ^ Self::WHOLE, Release)
                .is_ok()
    }
}

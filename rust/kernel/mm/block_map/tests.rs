// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of [`BlockMap`](super::BlockMap).

#[macros::kunit_tests(rust_kernel_block_map)]
mod suite {
    use crate::{
        impl_has_hr_timer,
        mm::block_map::{
            chunk::{
                claim_all,
                claim_word,
                free_word,
                WORD_UNITS, //
            },
            *, //
        },
        sync::{
            atomic::{
                Acquire,
                Full,
                Release, //
            },
            Arc,
            ArcBorrow,
            Completion, //
        },
        time::{
            hrtimer::{
                HrTimer,
                HrTimerCallback,
                HrTimerCallbackContext,
                HrTimerPointer,
                HrTimerRestart,
                RelativePinnedHardMode, //
            },
            Delta,
            Instant,
            Monotonic, //
        },
        workqueue, //
    };

    /// Some numbers of units: less than a word, whole words, whole chunks, and some more than that.
    const SIZES: [usize; 10] = [0, 1, 3, 63, 64, 65, 255, 512, 1000, 2049];

    fn block(first: usize, order: u32) -> Result<Block> {
        Block::new(first, order).ok_or(EINVAL)
    }

    /// Numbers that look random enough.
    struct Random(u32);

    impl Random {
        fn next(&mut self) -> u32 {
            self.0 = self.0.wrapping_mul(1664525).wrapping_add(1013904223);
            self.0 >> 8
        }

        /// Returns an order less than `limit`, more often a small one.
        fn order(&mut self, limit: u32) -> u32 {
            let max = self.next() % limit;
            self.next() % (max + 1)
        }

        /// Returns a block that starts at most at `len`.
        fn block(&mut self, len: usize, order: u32) -> Option<Block> {
            // CAST: The number is less than 2^24.
            let first = self.next() as usize % (len + 1);
            Block::new(first >> order << order, order)
        }
    }

    #[test]
    fn block_new() -> Result {
        assert!(Block::new(usize::MAX - 1, 0).is_some());
        assert!(Block::new(usize::MAX, 0).is_none());
        assert!(Block::new(0, usize::BITS - 1).is_some());
        assert!(Block::new(0, usize::BITS).is_none());

        for order in 1..usize::BITS - 2 {
            assert_eq!(block(1 << order, order)?.range(), 1 << order..2 << order);
            assert!(Block::new(1 << (order - 1), order).is_none());
        }

        Ok(())
    }

    #[test]
    fn sizes_and_orders() -> Result {
        for len in SIZES {
            for order in 0..=usize::BITS {
                let map = BlockMap::new(len, GFP_KERNEL)?;
                let nr_blocks = len.checked_shr(order).unwrap_or(0);

                // There are as many as fit, one next to the other.
                for i in 0..nr_blocks {
                    assert_eq!(map.used(), i << order);
                    assert_eq!(map.alloc(order), Some(block(i << order, order)?));
                }
                assert!(map.alloc(order).is_none());

                // Each of them can be freed once, and is found again.
                for i in (0..nr_blocks).rev() {
                    map.free(block(i << order, order)?)?;
                    assert_eq!(map.free(block(i << order, order)?), Err(EINVAL));
                    assert_eq!(map.alloc(order), Some(block(i << order, order)?));
                    assert!(map.alloc(order).is_none());
                }

                // Nobody gets, or frees, the bits that stand for no unit.
                assert_eq!(map.free(block(len, 0)?), Err(EINVAL));
                assert_eq!(map.claim(block(len, 0)?), Err(EINVAL));
            }
        }

        Ok(())
    }

    /// Does random things to a map, and to an array that says for each unit if it is in use.
    #[test]
    fn model() -> Result {
        fn all(in_use: &[bool], block: Block, value: bool) -> bool {
            let units = in_use.get(block.range());
            units.is_some_and(|units| units.iter().all(|unit| *unit == value))
        }

        fn lowest(in_use: &[bool], order: u32) -> Option<Block> {
            let mut blocks = (0..in_use.len() >> order).map(|i| Block::new(i << order, order));
            blocks.find(|block| block.is_some_and(|block| all(in_use, block, false)))?
        }

        for len in SIZES {
            let map = BlockMap::new(len, GFP_KERNEL)?;
            let mut in_use = KVVec::from_elem(false, len, GFP_KERNEL)?;
            let mut random = Random(1);

            for _ in 0..1000 {
                let order = random.order(CHUNK_ORDER + 3);
                let given = random.block(len, order).ok_or(EINVAL)?;
                let was_free = all(&in_use, given, false);
                let was_used = all(&in_use, given, true);
                let within = given.range().end <= len;

                assert_eq!(map.is_free(given), was_free);

                let (changed, value) = match random.next() % 4 {
                    0 => {
                        let expected = lowest(&in_use, order);
                        assert_eq!(map.alloc(order), expected);
                        (expected, true)
                    }
                    1 => {
                        let expected = (0..=order).rev().find_map(|o| lowest(&in_use, o));
                        assert_eq!(map.alloc_up_to(order), expected);
                        (expected, true)
                    }
                    2 => {
                        let error = Err(if within { EBUSY } else { EINVAL });
                        assert_eq!(map.claim(given), if was_free { Ok(()) } else { error });
                        (was_free.then_some(given), true)
                    }
                    _ => {
                        let error = Err(EINVAL);
                        assert_eq!(map.free(given), if was_used { Ok(()) } else { error });
                        (was_used.then_some(given), false)
                    }
                };

                if let Some(units) = changed.and_then(|block| in_use.get_mut(block.range())) {
                    units.fill(value);
                }

                let used = in_use.iter().filter(|unit| **unit).count();

                assert_eq!(map.used(), used);
                assert!(map.has_free(len - used));
                assert!(!map.has_free(len - used + 1));
            }
        }

        Ok(())
    }

    #[test]
    fn claim_rollback() -> Result {
        let chunk = Chunk::new(CHUNK_UNITS);

        // The bits of free units are first clear and then set.
        for _ in 0..2 {
            let flip = Chunk::flip(chunk.state.load(Relaxed));
            let claim = || {
                claim_all(
                    &chunk.words,
                    |word| claim_word(word, flip),
                    |word| free_word(word, flip),
                )
            };

            // As if somebody took a unit after the words had been found free.
            for unit in (0..CHUNK_UNITS).step_by(WORD_UNITS / 2 - 1) {
                let unit = block(unit, 0)?;

                assert!(chunk.claim(unit));
                assert!(!claim());
                assert_eq!(chunk.free(unit), 1);
                assert!(chunk.words.iter().all(|word| word.load(Relaxed) == flip));
            }
            assert!(claim());
            assert!(chunk.words.iter().all(|word| free_word(word, flip)));

            // The same without the words.
            assert!(chunk.claim_whole());
            for unit in 0..CHUNK_UNITS {
                assert_eq!(chunk.free(block(unit, 0)?), 1);
            }
        }

        // As if somebody took a unit after the chunks had been found free.
        let map = BlockMap::new(4 * CHUNK_UNITS, GFP_KERNEL)?;

        for unit in (0..map.len()).step_by(CHUNK_UNITS / 2 - 1) {
            let unit = block(unit, 0)?;

            map.claim(unit)?;
            assert!(!claim_all(
                &map.chunks,
                Chunk::claim_whole,
                Chunk::free_whole
            ));
            map.free(unit)?;
            assert!(map.chunks.iter().all(Chunk::is_free));
        }

        Ok(())
    }

    /// A block of all units of a chunk can be freed in parts, and be made of parts.
    #[test]
    fn parts_of_a_chunk() -> Result {
        let map = BlockMap::new(2 * CHUNK_UNITS, GFP_KERNEL)?;
        let whole = block(CHUNK_UNITS, CHUNK_ORDER)?;

        for order in (0..2 * CHUNK_ORDER).map(|i| i % CHUNK_ORDER) {
            let part = |i: usize| block(CHUNK_UNITS + (i << order), order);
            let nr_parts = CHUNK_UNITS >> order;

            map.claim(whole)?;
            for i in 0..nr_parts {
                assert_eq!(map.claim(part(i)?), Err(EBUSY));
            }
            for i in (0..nr_parts).rev() {
                map.free(part(i)?)?;
                assert_eq!(map.free(part(i)?), Err(EINVAL));
                assert_eq!(map.free(whole), Err(EINVAL));
                assert_eq!(map.claim(whole).is_ok(), i == 0);
            }
            map.free(whole)?;

            for i in 0..nr_parts {
                map.claim(part(i)?)?;
                assert_eq!(map.claim(whole), Err(EBUSY));
            }
            map.free(whole)?;
            assert_eq!(map.used(), 0);
        }

        Ok(())
    }

    #[test]
    fn free_below_hint() -> Result {
        for order in 0..CHUNK_ORDER + 2 {
            let map = BlockMap::new(4 * CHUNK_UNITS, GFP_KERNEL)?;
            let lowest = block(0, order)?;

            while map.alloc(0).is_some() {}
            assert_eq!(map.hint.load(Relaxed), 4);

            // As if somebody moved the hint at the same time.
            map.free(lowest)?;
            map.hint.store(4, Relaxed);

            assert_eq!(map.alloc(order), Some(lowest));
            assert_eq!(map.hint.load(Relaxed), 0);
            assert!(map.alloc(0).is_none());
        }

        Ok(())
    }

    /// A map that threads and a timer use at the same time.
    #[pin_data]
    struct Stress {
        map: BlockMap,
        /// For each unit the value of the slot it is, or is to be, in. 0 if it is free.
        owners: KVVec<Atomic<usize>>,
        /// Blocks that are in use, as `(first + 1) << 8 | order`. Anyone may free them.
        slots: [Atomic<usize>; 16],
        freed: Atomic<usize>,
        freed_by_timer: Atomic<usize>,
        errors: Atomic<usize>,
        running: Atomic<usize>,
        #[pin]
        done: Completion,
        #[pin]
        timer: HrTimer<Self>,
    }

    impl Stress {
        fn new(nr_units: usize) -> Result<Arc<Self>> {
            let mut owners = KVVec::with_capacity(nr_units, GFP_KERNEL)?;
            for _ in 0..nr_units {
                owners.push(Atomic::new(0), GFP_KERNEL)?;
            }

            Arc::pin_init(
                try_pin_init!(Self {
                    map: BlockMap::new(nr_units, GFP_KERNEL)?,
                    owners,
                    slots: [const { Atomic::new(0) }; 16],
                    freed: Atomic::new(0),
                    freed_by_timer: Atomic::new(0),
                    errors: Atomic::new(0),
                    running: Atomic::new(0),
                    done <- Completion::new(),
                    timer <- HrTimer::new(),
                }),
                GFP_KERNEL,
            )
        }

        /// Runs `work` in four threads, each of which has random numbers of its own.
        fn run(self: &Arc<Self>, work: impl Fn(&Self, Random) + Copy + Send + 'static) -> Result {
            self.running.store(4, Relaxed);

            for thread in 1..=4 {
                let this = self.clone();

                workqueue::system_unbound().try_spawn(GFP_KERNEL, move || {
                    work(&this, Random(thread));
                    if this.running.fetch_sub(1, Full) == 1 {
                        this.done.complete_all();
                    }
                })?;
            }

            self.done.wait_for_completion();
            Ok(())
        }

        /// Sets the owner of all units of a block. Until then it has to be `from`.
        fn pass(&self, block: Block, from: usize, to: usize) {
            for unit in block.range() {
                let owner = self.owners.get(unit);

                if owner.is_none_or(|owner| owner.cmpxchg(from, to, Relaxed).is_err()) {
                    self.errors.add(1, Relaxed);
                }
            }
        }

        /// Frees the block that has been in a slot, if any, and returns whether there was one.
        fn free(&self, value: usize) -> bool {
            // CAST: The lowest bits are the order.
            let block = |first| Block::new(first, (value & 0xff) as u32);
            let Some(block) = (value >> 8).checked_sub(1).and_then(block) else {
                return false;
            };

            self.pass(block, value, 0);
            // Free every other block in parts, so that the bits of chunks get both meanings.
            let parts = (self.freed.fetch_add(1, Relaxed) as u32 % 2 * 4).min(block.order());
            let order = block.order() - parts;

            for i in 0..1 << parts {
                let part = Block::new(block.first() + (i << order), order);

                if part.is_none_or(|part| self.map.free(part).is_err()) {
                    self.errors.add(1, Relaxed);
                }
            }
            true
        }

        /// Empties a slot, or fills it if it is empty. Returns whether a block has been freed.
        fn step(&self, random: &mut Random) -> bool {
            // CAST: The remainder is less than the number of slots.
            let Some(slot) = self.slots.get(random.next() as usize % self.slots.len()) else {
                return false;
            };

            if self.free(slot.xchg(0, Acquire)) {
                return true;
            }

            let order = random.order(CHUNK_ORDER + 2);
            let block = match random.next() % 3 {
                0 => self.map.alloc(order),
                1 => self.map.alloc_up_to(order),
                _ => random
                    .block(self.map.len(), order)
                    .filter(|block| self.map.claim(*block).is_ok()),
            };

            block.is_some_and(|block| {
                // CAST: An order is less than 256.
                let value = (block.first() + 1) << 8 | block.order() as usize;

                self.pass(block, 0, value);
                slot.cmpxchg(0, value, Release).is_err() && self.free(value)
            })
        }

        /// Empties the slots, and returns whether all went well and nothing is in use any more.
        fn is_clean(&self) -> bool {
            for slot in &self.slots {
                self.free(slot.xchg(0, Acquire));
            }

            self.errors.load(Relaxed) == 0
                && self.map.used() == 0
                && self.owners.iter().all(|owner| owner.load(Relaxed) == 0)
                && (0..self.map.len()).all(|i| block(i, 0).is_ok_and(|b| self.map.claim(b).is_ok()))
        }
    }

    impl_has_hr_timer! {
        impl HasHrTimer<Self> for Stress {
            mode: RelativePinnedHardMode<Monotonic>, field: self.timer
        }
    }

    impl HrTimerCallback for Stress {
        type Pointer<'a> = Arc<Self>;

        // Runs in hard interrupt context.
        fn run(
            this: ArcBorrow<'_, Self>,
            mut ctx: HrTimerCallbackContext<'_, Self>,
        ) -> HrTimerRestart {
            let freed = this.freed_by_timer.load(Relaxed);

            // CAST: Any number will do.
            let mut random = Random(freed as u32);
            let steps = (0..16).filter(|_| this.step(&mut random));
            this.freed_by_timer.store(freed + steps.count(), Relaxed);

            ctx.forward_now(Delta::from_micros(200));
            HrTimerRestart::Restart
        }
    }

    #[test]
    fn concurrent() -> Result {
        for nr_units in [WORD_UNITS, 4 * WORD_UNITS + 3, 4 * CHUNK_UNITS] {
            let stress = Stress::new(nr_units)?;

            stress.run(|stress, mut random| {
                let start = Instant::<Monotonic>::now();

                while start.elapsed().as_millis() < 200 {
                    stress.step(&mut random);
                }
            })?;

            assert!(stress.freed.load(Relaxed) > 0);
            assert!(stress.is_clean());
        }

        Ok(())
    }

    /// Of those who free the same block at the same time, one succeeds.
    #[test]
    fn concurrent_free() -> Result {
        for order in (0..80).map(|i| i % (CHUNK_ORDER + 2)) {
            let stress = Stress::new(4 * CHUNK_UNITS)?;
            let block = block(2 * CHUNK_UNITS, order)?;

            stress.map.claim(block)?;
            stress.run(move |stress, _| {
                if stress.map.free(block).is_ok() {
                    stress.freed.add(1, Relaxed);
                }
            })?;

            assert_eq!(stress.freed.load(Relaxed), 1);
            assert!(stress.is_clean());
        }

        Ok(())
    }

    #[test]
    fn hard_interrupt() -> Result {
        let stress = Stress::new(2 * CHUNK_UNITS + 5)?;
        let mut random = Random(3);

        let start = Instant::<Monotonic>::now();
        let timer = stress.clone().start(Delta::from_micros(200));

        // One is enough, as this may be a slow machine.
        while stress.freed_by_timer.load(Relaxed) < 5000 && start.elapsed().as_millis() < 500 {
            stress.step(&mut random);
        }
        drop(timer);

        assert!(stress.freed_by_timer.load(Relaxed) > 0);
        assert!(stress.is_clean());

        Ok(())
    }
}

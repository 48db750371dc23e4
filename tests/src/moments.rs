//! Moments at which the power may fail, from what a disk was asked.

use testkit::Rng;

use crate::block_disk::{Asked, Image, SECTOR, pieces};

/// Which of the writes since the last flush reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// None: a disk that keeps everything in its memory.
    Nothing,
    /// All, in order.
    Everything,
    /// About so many of 100 sectors, whichever they are: a disk writes in its own order.
    Some(u64),
    /// All but one sector.
    AllButOne,
}

/// A loss of power.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// How much the disk had been asked.
    pub position: usize,
    /// What it had made of it.
    pub reached: Reached,
}

/// So many moments in their order: the flushes themselves as far as they go, each as the last thing asked or about to be,
/// `marks` where somebody was answered, and others. All flushes where `count` allows.
pub fn choose(rng: &mut Rng, asked: &[Asked], marks: &[usize], count: usize) -> Vec<Moment> {
    let flushes: Vec<usize> =
        asked.iter().enumerate().filter(|(_, asked)| matches!(asked, Asked::Flush)).map(|(at, _)| at).collect();
    let mut moments: Vec<Moment> = Vec::new();
    if count / 2 >= flushes.len() {
        // Right behind each.
        moments.extend(flushes.iter().map(|at| Moment { position: at + 1, reached: Reached::Nothing }));
    }
    while moments.len() < count {
        let position = match rng.below(3) {
            0 => rng.pick(marks).copied(),
            // The most writes are on their way right before a flush.
            1 => rng.pick(&flushes).copied(),
            _ => usize::try_from(rng.below(asked.len() as u64 + 1)).ok(),
        };
        let reached = match rng.below(4) {
            0 => Reached::Nothing,
            1 => Reached::Everything,
            2 => Reached::AllButOne,
            _ => Reached::Some(rng.below(100)),
        };
        moments.push(Moment { position: position.unwrap_or(0), reached });
    }
    moments.sort_by_key(|moment| moment.position);
    moments
}

/// Makes disks of a record, for moments in their order.
pub struct Replay<'a> {
    asked: &'a [Asked],
    /// All up to the last flush that was come by.
    safe: Image,
    done: usize,
}

impl<'a> Replay<'a> {
    /// From this content on.
    pub fn new(asked: &'a [Asked], image: Image) -> Self {
        Self { asked, safe: image, done: 0 }
    }

    /// The disk after a loss of power; how many sectors were on their way, and how many of them reached it.
    pub fn at(&mut self, rng: &mut Rng, moment: Moment) -> (Image, usize, usize) {
        let flush = self.asked[..moment.position].iter().rposition(|asked| matches!(asked, Asked::Flush));
        let safe = flush.unwrap_or(0).max(self.done);
        for asked in &self.asked[self.done..safe] {
            if let Asked::Write { offset, bytes } = asked {
                self.safe.write(*offset, bytes);
            }
        }
        self.done = safe;
        let mut sectors = Vec::new();
        for asked in &self.asked[safe..moment.position] {
            if let Asked::Write { offset, bytes } = asked {
                sectors.extend(
                    pieces(*offset, bytes.len())
                        .map(|(number, within, range)| (number * SECTOR as u64 + within as u64, &bytes[range])),
                );
            }
        }
        let (mut image, mut reached) = (self.safe.clone(), 0);
        let left_out = rng.below(sectors.len().max(1) as u64) as usize;
        for (place, (offset, bytes)) in sectors.iter().enumerate() {
            let keeps = match moment.reached {
                Reached::Nothing => false,
                Reached::Everything => true,
                Reached::Some(percent) => rng.chance(percent),
                Reached::AllButOne => place != left_out,
            };
            if keeps {
                image.write(*offset, bytes);
                reached += 1;
            }
        }
        (image, sectors.len(), reached)
    }
}

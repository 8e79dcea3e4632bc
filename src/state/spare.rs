//! What a queue keeps of its memory once it is empty.

use std::collections::VecDeque;

/// Room for so many entries is kept: busy queues need it all the time. Of parcels that is 1.7 KiB, where an
/// idle service costs 9.
pub(super) const KEPT: usize = 16;

/// Lets go of the memory of a queue that is empty, unless it is little.
pub(super) fn let_go<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > KEPT {
        *queue = VecDeque::new();
    }
}

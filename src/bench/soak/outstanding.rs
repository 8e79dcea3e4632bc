//! What one source sent to one target, and has not ended yet.
//!
//! Messages of services that lose their connection may be lost with it, as the protocol says. They
//! are *excused*: whatever becomes of them is no fault.

use std::collections::BTreeMap;

use super::faults::Fault;

/// Messages of one stream under way.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    next: u64,
    /// Nothing is expected of numbers below.
    excused_below: u64,
    due: BTreeMap<u64, Due>,
}

/// What is still to come for a message.
#[derive(Debug, Clone, Copy)]
struct Due {
    end: bool,
    receipt: bool,
}

/// What never came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Absent {
    pub(super) ends: u64,
    pub(super) receipts: u64,
}

impl Outstanding {
    /// The number of the message that is sent now. An `excused` one is not followed up.
    pub(super) fn send(&mut self, receipt: bool, excused: bool) -> u64 {
        let number = self.next;
        self.next += 1;
        if excused {
            self.excuse();
        } else {
            self.due.insert(number, Due { end: true, receipt });
        }
        number
    }

    /// It arrived, for the first time.
    pub(super) fn arrived(&mut self, number: u64) -> Result<(), Fault> {
        match self.due.get_mut(&number) {
            Some(due) if due.end => {
                due.end = false;
                self.forget_if_done(number);
                Ok(())
            }
            _ => self.unless_excused(number, Fault::TwoEnds),
        }
    }

    /// An ERROR came for it. The target of an acknowledging stream may have processed it before.
    pub(super) fn errored(&mut self, number: u64, may_have_arrived: bool) -> Result<(), Fault> {
        let due = self.due.remove(&number);
        if due.is_some_and(|due| due.end) || (may_have_arrived && number < self.next) {
            return Ok(());
        }
        self.unless_excused(number, Fault::TwoEnds)
    }

    /// A RECEIPT came for it.
    pub(super) fn receipted(&mut self, number: u64) -> Result<(), Fault> {
        match self.due.get_mut(&number) {
            Some(due) if due.receipt => {
                due.receipt = false;
                self.forget_if_done(number);
                Ok(())
            }
            _ => self.unless_excused(number, Fault::WrongReceipt),
        }
    }

    /// A connection of its source or target ended.
    pub(super) fn excuse(&mut self) {
        self.excused_below = self.next;
        self.due.clear();
    }

    pub(super) fn absent(&self) -> Absent {
        let count = |is_due: fn(&Due) -> bool| self.due.values().filter(|due| is_due(due)).count() as u64;
        Absent { ends: count(|due| due.end), receipts: count(|due| !due.end && due.receipt) }
    }

    /// The first number that has not ended.
    pub(super) fn first(&self) -> Option<u64> {
        self.due.keys().next().copied()
    }

    fn forget_if_done(&mut self, number: u64) {
        if self.due.get(&number).is_some_and(|due| !due.end && !due.receipt) {
            self.due.remove(&number);
        }
    }

    fn unless_excused(&self, number: u64, fault: Fault) -> Result<(), Fault> {
        if number < self.excused_below { Ok(()) } else { Err(fault) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many messages sent, without RECEIPTs.
    fn sent(count: u64) -> Outstanding {
        let mut stream = Outstanding::default();
        assert!((0..count).all(|number| stream.send(false, false) == number));
        stream
    }

    #[test]
    fn each_message_has_one_end() {
        let mut stream = sent(3);
        assert_eq!((stream.arrived(0), stream.errored(1, false)), (Ok(()), Ok(())));
        assert_eq!(stream.absent(), Absent { ends: 1, receipts: 0 });
        assert_eq!(stream.first(), Some(2));
        assert_eq!(stream.arrived(1), Err(Fault::TwoEnds));
        assert_eq!(stream.errored(0, false), Err(Fault::TwoEnds));
        assert_eq!(stream.errored(1, false), Err(Fault::TwoEnds));
    }

    #[test]
    fn a_message_that_was_not_sent_has_no_end() {
        assert_eq!(sent(1).arrived(1), Err(Fault::TwoEnds));
        assert_eq!(sent(1).errored(1, true), Err(Fault::TwoEnds));
    }

    #[test]
    fn what_an_acknowledging_service_got_may_be_returned() {
        let mut stream = sent(1);
        stream.arrived(0).unwrap();
        assert_eq!(stream.errored(0, true), Ok(()));
    }

    #[test]
    fn one_receipt_is_due_and_one_only() {
        let mut stream = Outstanding::default();
        stream.send(true, false);
        stream.send(true, false);
        stream.arrived(0).unwrap();
        assert_eq!(stream.absent(), Absent { ends: 1, receipts: 1 });
        stream.receipted(0).unwrap();
        assert_eq!(stream.receipted(0), Err(Fault::WrongReceipt));
        stream.receipted(1).unwrap();
        assert_eq!(stream.receipted(1), Err(Fault::WrongReceipt));
        stream.arrived(1).unwrap();
        assert_eq!(stream.absent(), Absent::default());
        assert_eq!(sent(1).receipted(0), Err(Fault::WrongReceipt));
    }

    #[test]
    fn an_error_is_the_end_of_the_receipt_too() {
        let mut stream = Outstanding::default();
        stream.send(true, false);
        stream.errored(0, false).unwrap();
        assert_eq!(stream.absent(), Absent::default());
        assert_eq!(stream.receipted(0), Err(Fault::WrongReceipt));
    }

    #[test]
    fn nothing_is_expected_of_what_was_excused() {
        let mut stream = sent(2);
        stream.excuse();
        assert_eq!(stream.absent(), Absent::default());
        assert_eq!(
            (stream.arrived(0), stream.errored(1, false), stream.arrived(1)),
            (Ok(()), Ok(()), Ok(()))
        );
        stream.send(false, false);
        assert_eq!(stream.absent(), Absent { ends: 1, receipts: 0 });
        stream.send(false, true);
        assert_eq!(stream.absent(), Absent::default());
    }
}

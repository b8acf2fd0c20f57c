//! Threads that are set up one by one, start together, and are measured from that start to the end of the last.

use crate::{
    error::RunError,
    figures::{Meter, Span},
    pinning::{Pinning, pin},
};
use core_affinity::CoreId;
use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

/// What a worker says to the one who measures, and hears from it. Dropping an end is an answer too, so that a
/// worker that fails or panics holds up nobody.
struct Line {
    ready: Sender<()>,
    go: Receiver<()>,
    done: Sender<()>,
    over: Receiver<()>,
}

/// Sets up a state per thread, on its core; when all are ready runs `work` on all at the same time; when all have
/// ended takes the time and runs `conclude`. Only `work` is measured.
pub(crate) fn run_together<S, T: Send>(
    threads: usize,
    pinning: Pinning,
    set_up: impl Fn(usize) -> Result<S, RunError> + Sync,
    work: impl Fn(&mut S) -> Result<(), RunError> + Sync,
    conclude: impl Fn(S) -> Result<T, RunError> + Sync,
) -> Result<(Vec<T>, Span), RunError> {
    let cores = pinning.cores(threads)?;
    let (ready, all_ready) = channel();
    let (done, all_done) = channel();
    let (set_up, work, conclude) = (&set_up, &work, &conclude);
    thread::scope(|scope| {
        let (mut go, mut over, mut handles) = (Vec::new(), Vec::new(), Vec::new());
        for (index, core) in cores.into_iter().enumerate() {
            let (go_sender, go_receiver) = channel();
            let (over_sender, over_receiver) = channel();
            go.push(go_sender);
            over.push(over_sender);
            let line =
                Line { ready: ready.clone(), go: go_receiver, done: done.clone(), over: over_receiver };
            handles.push(scope.spawn(move || run_one(line, core, || set_up(index), work, conclude)));
        }
        drop((ready, done));
        let meter = (all_ready.iter().count() == threads).then(|| {
            let meter = Meter::start();
            for go in &go {
                // A worker that died meanwhile does not hear it; joining tells.
                let _heard = go.send(());
            }
            meter
        });
        drop(go);
        let _all_ended = all_done.iter().count();
        let span = meter.map(|meter| meter.stop());
        drop(over);
        gather(handles.into_iter().map(|handle| handle.join().unwrap_or(Err(RunError::WorkerPanicked))), span)
    })
}

fn run_one<S, T>(
    line: Line,
    core: Option<CoreId>,
    set_up: impl FnOnce() -> Result<S, RunError>,
    work: impl Fn(&mut S) -> Result<(), RunError>,
    conclude: impl Fn(S) -> Result<T, RunError>,
) -> Result<T, RunError> {
    let Line { ready, go, done, over } = line;
    pin(core)?;
    let mut state = set_up()?;
    let _told = ready.send(());
    drop(ready);
    go.recv().map_err(|_| RunError::Abandoned)?;
    work(&mut state)?;
    drop(done);
    // Never sent, only closed: what follows must not begin before the time is taken.
    let _closed = over.recv();
    conclude(state)
}

/// All outcomes, or the first error that is a cause and not a consequence.
fn gather<T>(
    outcomes: impl Iterator<Item = Result<T, RunError>>,
    span: Option<Span>,
) -> Result<(Vec<T>, Span), RunError> {
    let (mut values, mut abandoned) = (Vec::new(), span.is_none());
    let mut cause = None;
    for outcome in outcomes {
        match outcome {
            Ok(value) => values.push(value),
            Err(RunError::Abandoned) => abandoned = true,
            Err(error) => cause = cause.or(Some(error)),
        }
    }
    match (cause, abandoned, span) {
        (Some(error), ..) => Err(error),
        (None, false, Some(span)) => Ok((values, span)),
        _ => Err(RunError::Abandoned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_give_their_outcome_in_order() {
        let double = |index: &mut usize| {
            *index *= 2;
            Ok(())
        };
        let (values, span) = run_together(3, Pinning::Free, Ok, double, Ok).expect("nothing fails");
        assert_eq!(values, [0, 2, 4]);
        assert!(span.seconds > 0.0);
    }

    #[test]
    fn a_worker_that_cannot_be_set_up_stops_the_run_with_its_error() {
        let set_up = |index| if index == 1 { Err(RunError::Pin { core: 9 }) } else { Ok(index) };
        let result = run_together(3, Pinning::Free, set_up, |_| Ok(()), Ok);
        assert!(matches!(result, Err(RunError::Pin { core: 9 })));
    }

    #[test]
    fn a_worker_that_panics_or_fails_in_the_middle_holds_up_nobody() {
        let result = run_together(
            2,
            Pinning::Free,
            Ok,
            |index| {
                assert_ne!(*index, 0, "expected by the test");
                Ok(())
            },
            Ok,
        );
        assert!(matches!(result, Err(RunError::WorkerPanicked)));
        let result = run_together(2, Pinning::Free, Ok, |_| Err(RunError::Damage { position: 3 }), Ok);
        assert!(matches!(result, Err(RunError::Damage { position: 3 })));
    }
}

use std::future::pending;
use std::pin::pin;
use std::sync::mpsc;
use std::thread::ThreadId;
use std::time::Instant;

use actix_service::boxed::BoxService;
use actix_service::{fn_factory, fn_service};
use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::*;

/// More than anything here takes.
const LONG: Duration = Duration::from_mins(1);

/// Enough for a thread to end that has nothing to do, where the machine is not busy.
const SHORT: Duration = Duration::from_millis(200);

/// A connection: tells its thread, and ends when it is told to.
struct Visit {
    thread: oneshot::Sender<ThreadId>,
    end: oneshot::Receiver<()>,
}

/// The other side of a [`Visit`], which ends when this is dropped.
struct Visitor {
    thread: oneshot::Receiver<ThreadId>,
    end: oneshot::Sender<()>,
}

fn visit() -> (Visit, Visitor) {
    let ((thread, told), (end, ended)) = (oneshot::channel(), oneshot::channel());
    (Visit { thread, end: ended }, Visitor { thread: told, end })
}

fn start(threads: usize, max_connections: usize) -> (Workers, Balancer<Visit>) {
    let workers = Workers::start(threads, max_connections).unwrap();
    let mut balancer = workers.serve(|| {
        fn_service(async |visit: Visit| {
            visit.thread.send(thread::current().id()).unwrap();
            let _ = visit.end.await;
            Ok::<_, ()>(())
        })
    });
    balancer.rng = Rng::with_seed(7);
    (workers, balancer)
}

/// Lets one in: who, and where it is.
async fn enter(balancer: &mut Balancer<Visit>) -> (Visitor, ThreadId) {
    let (visit, mut visitor) = visit();
    balancer.dispatch(visit, balancer.permit().await).unwrap();
    let thread = (&mut visitor.thread).await.unwrap();
    (visitor, thread)
}

#[test]
fn of_the_least_loaded_each_is_as_likely() {
    let mut rng = Rng::with_seed(7);
    let mut found = [0; 5];
    for _ in 0..3_000 {
        found[least_loaded([3, 1, 1, 2, 1].into_iter(), &mut rng)] += 1;
    }
    assert_eq!((found[0], found[3]), (0, 0), "{found:?}");
    assert!([1, 2, 4].iter().all(|at| (900..1_100).contains(&found[*at])), "{found:?}");
    assert_eq!(least_loaded([7].into_iter(), &mut rng), 0);
}

#[actix::test]
async fn connections_that_come_by_turns_are_not_on_a_thread_for_each_kind() {
    let (workers, mut balancer) = start(2, 1_000);
    let (mut visitors, mut threads) = (Vec::new(), Vec::new());
    for _ in 0..64 {
        let (visitor, thread) = enter(&mut balancer).await;
        visitors.push(visitor);
        threads.push(thread);
    }
    let first = threads[0];
    let on_the_first =
        |threads: &mut dyn Iterator<Item = &ThreadId>| threads.filter(|on| **on == first).count();
    assert_eq!(on_the_first(&mut threads.iter()), 32, "each thread has as many: {threads:?}");
    let of_one_kind = on_the_first(&mut threads.iter().step_by(2));
    assert!((8..=24).contains(&of_one_kind), "{of_one_kind} of 32: {threads:?}");
    workers.stop(SHORT).await;
}

#[actix::test]
async fn the_next_connection_is_where_one_ended() {
    let (workers, mut balancer) = start(3, 3);
    let mut visitors = Vec::new();
    for _ in 0..3 {
        visitors.push(enter(&mut balancer).await);
    }
    for _ in 0..10 {
        let (gone, thread) = visitors.remove(0);
        drop(gone);
        // There is a permit once it is counted no more.
        visitors.push(enter(&mut balancer).await);
        assert_eq!(visitors[2].1, thread);
    }
    workers.stop(SHORT).await;
}

#[actix::test]
async fn whoever_there_is_no_room_for_waits_at_whichever_listener() {
    let (workers, mut balancer) = start(2, 2);
    let other = workers.serve::<Visit, _>(|| fn_service(|_| pending::<Result<(), ()>>()));
    let (first, second) = (enter(&mut balancer).await, enter(&mut balancer).await);
    assert!(balancer.permit().now_or_never().is_none() && other.permit().now_or_never().is_none());
    drop(first);
    let permit = other.permit().await;
    assert!(balancer.permit().now_or_never().is_none());
    drop((permit, second));
    drop((balancer.permit().await, balancer.permit().await));
    workers.stop(SHORT).await;
}

#[actix::test]
async fn a_connection_has_time_to_end_before_its_thread_does() {
    let workers = Workers::start(2, 10).unwrap();
    let mut balancer = workers.serve(|| {
        fn_service(async |visit: Visit| {
            let _ = visit.end.await;
            // Where the thread had ended first, nobody would say so.
            visit.thread.send(thread::current().id()).unwrap();
            Ok::<_, ()>(())
        })
    });
    let (visit, visitor) = visit();
    balancer.dispatch(visit, balancer.permit().await).unwrap();
    let mut stopping = pin!(workers.stop(LONG));
    assert!(stopping.as_mut().now_or_never().is_none());
    visitor.end.send(()).unwrap();
    let begun = Instant::now();
    stopping.await;
    visitor.thread.await.unwrap();
    assert!(begun.elapsed() < LONG, "its end was not noticed");
}

#[actix::test]
async fn a_connection_that_does_not_end_ends_with_its_thread() {
    let (workers, mut balancer) = start(2, 10);
    let (mut visitor, _) = enter(&mut balancer).await;
    let permits = workers.load.permits.clone();
    workers.stop(SHORT).await;
    let ended = async {
        visitor.end.closed().await;
        permits.acquire_many(10).await.map(drop)
    };
    timeout(LONG, ended).await.expect("it ends").unwrap();
}

#[actix::test]
async fn a_thread_that_does_not_end_is_not_waited_for_without_end() {
    let workers = Workers::start(2, 10).unwrap();
    let mut balancer = workers.serve(|| {
        fn_service(|(entered, end): (oneshot::Sender<()>, mpsc::Receiver<()>)| {
            entered.send(()).unwrap();
            let _ = end.recv();
            pending::<Result<(), ()>>()
        })
    });
    let ((entered, is_there), (end, ended)) = (oneshot::channel(), mpsc::channel());
    balancer.dispatch((entered, ended), balancer.permit().await).unwrap();
    is_there.await.unwrap();
    workers.stop(SHORT).await;
    end.send(()).expect("the thread is still there");
}

#[actix::test]
async fn a_panic_ends_one_connection_and_neither_its_thread_nor_others() {
    let workers = Workers::start(1, 2).unwrap();
    let mut balancer = workers.serve(|| {
        fn_service(|answer: Option<oneshot::Sender<()>>| {
            let _ = answer.expect("a panic that is meant").send(());
            pending::<Result<(), ()>>()
        })
    });
    balancer.dispatch(None, balancer.permit().await).unwrap();
    for _ in 0..2 {
        let (answer, is_served) = oneshot::channel();
        balancer.dispatch(Some(answer), balancer.permit().await).unwrap();
        is_served.await.unwrap();
    }
    workers.stop(SHORT).await;
}

#[actix::test]
async fn nobody_is_let_in_where_the_thread_is_gone() {
    let (workers, mut balancer) = start(1, 10);
    workers.stop(LONG).await;
    let (visit, _visitor) = visit();
    let error = balancer.dispatch(visit, balancer.permit().await).unwrap_err();
    assert_eq!(error.to_string(), "thread 0 of `workers` serves no connections");
}

/// As if the service itself could not be made.
#[actix::test]
async fn a_thread_that_cannot_serve_is_as_good_as_gone() {
    let workers = Workers::start(1, 10).unwrap();
    let mut balancer =
        workers.serve::<Visit, _>(|| fn_factory(async || Err::<BoxService<Visit, (), ()>, _>(())));
    let (visit, visitor) = visit();
    // It may not know yet.
    let _ = balancer.dispatch(visit, balancer.permit().await);
    assert!(visitor.thread.await.is_err());
    workers.stop(SHORT).await;
}

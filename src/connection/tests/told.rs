//! Those who wait are told, and nobody waits for what does not come.

use std::sync::Mutex;

use super::*;

/// Begins this on a thread of its own. What it returns waits for what comes of it, and not for ever.
fn begin<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> impl FnOnce() -> T {
    let (done, is_done) = crossbeam_channel::bounded(1);
    thread::spawn(move || drop(done.send(what())));
    move || is_done.recv_timeout(Duration::from_secs(10)).expect("it goes on for ever")
}

/// Knows these.
#[derive(Debug, Default)]
struct Listed(Mutex<Vec<Arc<Connection>>>);

impl Registrar for Listed {
    fn unregister(&self, _: &Arc<Connection>) {}

    fn all(&self) -> Vec<Arc<Connection>> {
        self.0.locked().clone()
    }
}

/// What somebody has read and not acknowledged, or may still read, stays when its connection is cut: nobody waits for it, and nobody
/// else is ended in its place.
#[test]
fn a_shortage_is_over_when_those_that_hold_most_are() {
    for is_closing in [false, true] {
        let listed = Arc::new(Listed::default());
        let (sender, _mail) = crossbeam_channel::unbounded();
        let context =
            Arc::new(context(Limits::default(), listed.clone(), Arc::new(Post::new(sender, || {}))));
        context.buffered.lower_bound_to(1 << 20);
        let all = [900_000_u32, 100_000].map(|size| {
            let id = WebSocketId::random(NodeId::new(1));
            let (connection, client) = connect(Role::Server, id, None, true, context.clone());
            listed.0.locked().push(connection.clone());
            let mut received = [&[0x82, 0xff, 0, 0, 0, 0][..], &size.to_be_bytes(), &[0; 4]].concat();
            received.resize(received.len() + size as usize, 7);
            while connection.take_in(&mut received, &mut Work::piece()).intake == Intake::More {}
            (connection, client)
        });
        let [(large, _), (small, _)] = &all;
        let _loan = match is_closing {
            false => Some(large.read_loan(usize::MAX, Duration::ZERO, &AtomicBool::new(false)).unwrap()),
            true => {
                large.close(CloseCode::NORMAL, "");
                None
            }
        };
        assert!(context.buffered.change(0, 200), "it is no shortage");
        let relieves = context.clone();
        begin(move || relieves.relieve())();
        assert!(large.is_over() && small.reason().is_none(), "{:?}", small.reason());
        listed.0.locked().clear();
    }
}

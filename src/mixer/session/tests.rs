//! In which order a mix tells of itself.

use std::sync::mpsc;

use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tracing::{Metadata, Subscriber, span};

use super::*;
use crate::mixer::{Event, Mixer};
use crate::relay;

/// A mix of a stream that never comes, and what it tells.
fn mixer() -> (Mixer, Receiver<Event>) {
    let relay = Relay::new(relay::Config::default());
    let mixer = Mixer::new(relay, Config::default()).expect("GStreamer is installed");
    let events = mixer.events();
    (mixer, events)
}

fn put(mixer: &Mixer) -> Result<Arc<Session>, Error> {
    // One that may pass waits asleep, and says so.
    let request = json!({"app": "live", "inputs": [{"stream": "a", "layer": 1}],
        "output": {"stream": "b", "passthrough": "never"}});
    mixer.put("m", serde_json::from_value(request).unwrap())?;
    Ok(mixer.sessions().get("m").cloned().unwrap())
}

/// All until it is gone.
async fn told(events: &mut Receiver<Event>) -> Vec<Change> {
    let mut all = Vec::new();
    while !matches!(all.last(), Some(Change::Ended(_))) {
        let event = tokio::time::timeout(Duration::from_secs(10), events.recv());
        all.push(event.await.expect("in time").expect("none missed").change);
    }
    all
}

/// Where its thread says the first word, it lets somebody else act and waits for them, but not for ever.
struct Interrupted {
    says: Mutex<Option<mpsc::Sender<()>>>,
    heard: Mutex<mpsc::Receiver<()>>,
}

impl Subscriber for Interrupted {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn event(&self, _: &tracing::Event<'_>) {
        if let Some(says) = self.says.lock().unwrap().take() {
            says.send(()).unwrap();
            let heard = self.heard.lock().unwrap();
            let _ = heard.recv_timeout(Duration::from_millis(300));
        }
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_are_told_in_the_order_in_which_they_became_true() {
    let (mixer, mut events) = mixer();
    let session = put(&mixer).unwrap();
    let ((says, begins), (done, heard)) = (mpsc::channel(), mpsc::channel());
    let other = session.clone();
    let ender = std::thread::spawn(move || {
        begins.recv().unwrap();
        other.end(Ending::Asked);
        // Nobody may be waiting any more.
        let _ = done.send(());
    });
    let interrupted = Interrupted {
        says: Mutex::new(Some(says)),
        heard: Mutex::new(heard),
    };
    tracing::subscriber::with_default(interrupted, || session.set_state(MixState::Live, None));
    ender.join().unwrap();
    let why = Some(Ending::Asked.to_string());
    let state = |state, why| Change::State { state, why };
    assert_eq!(
        told(&mut events).await,
        [
            Change::Started,
            state(MixState::Live, None),
            state(MixState::Ending, why),
            Change::Ended(Ending::Asked),
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_mix_that_is_gone_nothing_more_is_told() {
    let (mixer, mut events) = mixer();
    let session = put(&mixer).unwrap();
    session.tell(Change::Ended(Ending::Lost));
    // As if its thread had been about to leave.
    session.end(Ending::Asked);
    let all = told(&mut events).await;
    assert_eq!(all, [Change::Started, Change::Ended(Ending::Lost)]);
    let end = tokio::time::timeout(Duration::from_secs(10), events.recv());
    let end = end.await.unwrap().unwrap().change;
    assert_eq!(end, Change::Ended(Ending::Asked), "its thread's own word");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_without_a_thread_has_never_started() {
    let (mixer, mut events) = mixer();
    let faults = mixer.shared.context.faults.clone();
    faults.deny_threads(true);
    let error = put(&mixer).err().expect("no thread");
    assert!(error.to_string().contains("no thread for a mix"), "{error}");
    faults.deny_threads(false);
    let session = put(&mixer).expect("the output is free again");
    session.end(Ending::Asked);
    let all = told(&mut events).await;
    let started = all.iter().filter(|change| **change == Change::Started);
    assert_eq!((started.count(), &all[0]), (1, &Change::Started), "{all:?}");
}

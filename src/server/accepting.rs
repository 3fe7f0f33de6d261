//! The open listeners and who serves each: begun, paused while another process may take them, begun again, given up.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::doors::Door;
use crate::api;
use crate::ingest::Ingest;
use crate::net::Entrance;
use crate::playback;

/// Who serves what comes in at a listener.
#[derive(Clone)]
enum Service {
    Ingest(Ingest, Entrance),
    Players(playback::Http, Entrance),
    Api(Router),
}

struct Open {
    name: &'static str,
    /// Not accepted from itself: who accepts has a descriptor of its own, which goes with its task.
    listener: TcpListener,
    service: Service,
}

/// Handle on the listeners. Cheap to clone.
#[derive(Clone)]
pub struct Accepting(Arc<Inner>);

struct Inner {
    open: Mutex<Vec<Open>>,
    /// Ends what was begun last.
    stop: Mutex<CancellationToken>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Accepting {
    /// None yet.
    pub fn new(tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            open: Mutex::default(),
            stop: Mutex::new(shutdown.child_token()),
            tasks,
            shutdown,
        }))
    }

    /// Publishers and players over RTMP come in here.
    pub fn add_ingest(&self, name: &'static str, door: Door, ingest: &Ingest) {
        let service = Service::Ingest(ingest.clone(), door.entrance);
        self.add(name, door.listeners, &service);
    }

    /// Players over HTTP come in here.
    pub fn add_players(&self, name: &'static str, door: Door, http: &playback::Http) {
        let service = Service::Players(http.clone(), door.entrance);
        self.add(name, door.listeners, &service);
    }

    /// Callers of a router come in here.
    pub fn add_api(&self, name: &'static str, door: Door, router: Router) {
        self.add(name, door.listeners, &Service::Api(router));
    }

    fn add(&self, name: &'static str, listeners: Vec<TcpListener>, service: &Service) {
        self.0
            .open()
            .extend(listeners.into_iter().map(|listener| Open {
                name,
                listener,
                service: service.clone(),
            }));
    }

    /// Accepts at all of them from now on.
    ///
    /// # Errors
    /// When the runtime or the limit of descriptors refuses; then nothing is accepted.
    pub fn begin(&self) -> io::Result<()> {
        let stop = self.0.shutdown.child_token();
        let guard = stop.clone().drop_guard();
        for open in self.0.open().iter() {
            let listener = tokio::net::TcpListener::from_std(open.listener.try_clone()?)?;
            let stop = stop.clone();
            match open.service.clone() {
                Service::Ingest(ingest, entrance) => {
                    let serve = ingest.serve(listener, entrance);
                    self.0.tasks.spawn(stop.run_until_cancelled_owned(serve))
                }
                Service::Players(http, entrance) => {
                    let serve = http.serve(listener, entrance);
                    self.0.tasks.spawn(stop.run_until_cancelled_owned(serve))
                }
                Service::Api(router) => self.0.tasks.spawn(async move {
                    if let Err(error) = api::serve(listener, router, stop).await {
                        warn!(%error, "HTTP service ended");
                    }
                    Some(())
                }),
            };
        }
        *self.0.stop() = guard.disarm();
        Ok(())
    }

    /// Accepts no more; who connects waits in the kernel's queue. Who is in stays, but for callers of the API that ask for
    /// nothing at the moment and have asked before, or do not within half a second.
    pub fn pause(&self) {
        self.0.stop().cancel();
    }

    /// Lets `with` have the listeners by their names.
    pub fn lend<T>(&self, with: impl FnOnce(&[(&'static str, BorrowedFd<'_>)]) -> T) -> T {
        let open = self.0.open();
        let all: Vec<_> = open
            .iter()
            .map(|open| (open.name, open.listener.as_fd()))
            .collect();
        with(&all)
    }

    /// Closes them on this side: somebody else has them.
    pub fn give_up(&self) {
        self.pause();
        self.0.open().clear();
    }
}

impl Inner {
    fn open(&self) -> MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) -> MutexGuard<'_, CancellationToken> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Handles on the encoders of running mixes, so that tests can break them.
//!
//! Of pictures unless something else is said.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::mixer::program::Settings;

/// What happens to each encoder that is made, and the newest ones.
#[derive(Default)]
pub struct Faults(Mutex<State>);

type Weak = gst::glib::WeakRef<gst::Pipeline>;

#[derive(Default)]
struct State {
    newest: Option<Weak>,
    newest_of_sound: Option<Weak>,
    made: usize,
    always: Option<Fault>,
    spoils: bool,
    spoilt: usize,
    no_threads: bool,
}

#[derive(Clone)]
pub enum Fault {
    /// An error on the bus.
    Error,
    /// The encoder takes a frame and never returns, until the latch is opened.
    Hang(Arc<Latch>),
    /// Frames are taken and nothing comes out.
    Swallow,
    /// A new picture takes that long, unless the preset is the one named.
    Slow(Duration, &'static str),
    /// A mistake of ours, on the mix's thread. Only for those that are made.
    Panic,
}

#[derive(Default)]
pub struct Latch(Mutex<bool>, Condvar);

impl Latch {
    pub fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        let open = self.0.lock().unwrap();
        drop(self.1.wait_while(open, |open| !*open).unwrap());
    }
}

impl Faults {
    /// Called for each video encoder's pipeline, with that of the sound beside it.
    pub fn made(&self, pipeline: gst::Pipeline, sound: gst::Pipeline) {
        let mut state = self.0.lock().unwrap();
        state.made += 1;
        let always = state.always.clone();
        if let Some(Fault::Panic) = always {
            drop(state);
            panic!("on purpose");
        }
        if let Some(fault) = always {
            strike(&pipeline, fault);
        }
        state.newest = Some(pipeline.downgrade());
        state.newest_of_sound = Some(sound.downgrade());
    }

    /// Called with the settings of each video encoder that is to take the place of another.
    pub fn making(&self, settings: Settings) -> Settings {
        let mut state = self.0.lock().unwrap();
        if !state.spoils {
            return settings;
        }
        state.spoilt += 1;
        Settings {
            preset: "spoilt".into(),
            ..settings
        }
    }

    /// Called with what makes a mix's thread.
    pub fn thread(&self, builder: std::thread::Builder) -> std::thread::Builder {
        if self.0.lock().unwrap().no_threads {
            // No machine has room for such a stack.
            return builder.stack_size(1 << 60);
        }
        builder
    }

    /// No mix gets a thread from now on, or each does.
    pub fn deny_threads(&self, deny: bool) {
        self.0.lock().unwrap().no_threads = deny;
    }

    /// None that is to take the place of another can be made from now on, or any can.
    pub fn spoil(&self, spoils: bool) {
        self.0.lock().unwrap().spoils = spoils;
    }

    /// How many could not be made for that.
    pub fn spoilt(&self) -> usize {
        self.0.lock().unwrap().spoilt
    }

    /// Video encoders made so far.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().made
    }

    /// Breaks the newest.
    pub fn strike(&self, fault: Fault) {
        strike(&alive(&self.0.lock().unwrap().newest), fault);
    }

    /// Breaks the newest of sound.
    pub fn strike_sound(&self, fault: Fault) {
        strike(&alive(&self.0.lock().unwrap().newest_of_sound), fault);
    }

    /// Breaks each that is made from now on; `None`: none.
    pub fn always(&self, fault: Option<Fault>) {
        self.0.lock().unwrap().always = fault;
    }
}

fn alive(newest: &Option<Weak>) -> gst::Pipeline {
    let newest = newest.as_ref().and_then(|weak| weak.upgrade());
    newest.expect("a mix runs")
}

fn strike(pipeline: &gst::Pipeline, fault: Fault) {
    let encodes = |f: gst::ElementFactory| f.has_type(gst::ElementFactoryType::ENCODER);
    let encoder = pipeline
        .iterate_elements()
        .into_iter()
        .flatten()
        .find(|e| e.factory().is_some_and(encodes))
        .expect("it has an encoder");
    let into = encoder.static_pad("sink").unwrap();
    match fault {
        Fault::Error => {
            gst::element_error!(encoder, gst::LibraryError::Encode, ("made to fail"));
        }
        Fault::Swallow => {
            into.add_probe(gst::PadProbeType::BUFFER, |_, info| {
                info.data.take();
                gst::PadProbeReturn::Handled
            });
        }
        Fault::Hang(latch) => {
            into.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                latch.wait();
                gst::PadProbeReturn::Ok
            });
        }
        Fault::Panic => panic!("only where one is made"),
        Fault::Slow(by, spared) => {
            let preset = encoder.property_value("speed-preset");
            let preset = gst::glib::EnumValue::from_value(&preset).map(|v| v.1.nick().to_owned());
            if preset.as_deref() != Some(spared) {
                // A repeated picture costs next to nothing, as with real encoders.
                let shown = Mutex::new(0);
                into.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                    let memory = info
                        .buffer()
                        .map_or(0, |b| b.peek_memory(0).as_ptr() as usize);
                    if std::mem::replace(&mut *shown.lock().unwrap(), memory) != memory {
                        std::thread::sleep(by);
                    }
                    gst::PadProbeReturn::Ok
                });
            }
        }
    }
}

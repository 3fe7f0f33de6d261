//! The priority of threads that mix: lower than that of those that relay.
//!
//! A decoder or an encoder that computes for some milliseconds is nothing to its own viewers, but where processors are short it
//! would be added to the way of every message that the relay passes on. Called on each such thread as it begins.

use gstreamer as gst;

use crate::net::slice;

/// How nice threads that mix are: by the weights of Linux's scheduler a thread of the relay then gets two and a half times the share
/// of one of theirs (1024 to 423). More would make mixes the first to starve beside any other program of the host: at 10, with
/// four encoding ffmpegs on the same two cores, output frames came up to 0.9 s late.
const NICENESS: i32 = 4;

/// Lets the relay's threads go before the calling one, for good, and asks for long slices of a core, so that these do not wait for the
/// end of its own: no privilege is needed to step back, but one is to
/// come forward again.
pub fn step_back() {
    // Linux knows niceness per thread, and no process is meant by "the calling process" there. That it can fail is not
    // in setpriority(2) for a thread that only steps back.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    slice::long();
}

/// As above, if `message` is one by which a streaming thread says, on itself, that it begins.
pub fn observe(message: &gst::MessageRef) {
    if let gst::MessageView::StreamStatus(status) = message.view()
        && status.get().0 == gst::StreamStatusType::Enter
    {
        step_back();
    }
}

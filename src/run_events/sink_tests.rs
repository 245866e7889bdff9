use std::sync::mpsc::Receiver;

use super::*;
use crate::run_events::{FileRef, FileStatus, TestStarted};

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Event>>>);

impl Consumer for Recorder {
    fn output(&self) -> String {
        "recorder".to_owned()
    }
    fn event(&mut self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
    fn finish(self: Box<Self>) -> Result<(), ConsumerError> {
        Ok(())
    }
}

/// Reads nothing until it is let go.
struct Stuck(Receiver<()>);

impl Consumer for Stuck {
    fn output(&self) -> String {
        "stuck".to_owned()
    }
    fn event(&mut self, _: &Event) {
        let _ = self.0.recv();
    }
    fn finish(self: Box<Self>) -> Result<(), ConsumerError> {
        Err(ConsumerError::new("stuck", "no space"))
    }
}

struct Broken;

impl Consumer for Broken {
    fn output(&self) -> String {
        "broken".to_owned()
    }
    fn event(&mut self, _: &Event) {
        panic!("on purpose");
    }
    fn finish(self: Box<Self>) -> Result<(), ConsumerError> {
        Ok(())
    }
}

fn discovered(file: usize) -> EventKind {
    EventKind::FileDiscovered(FileRef { file: format!("{file}.test.lua") })
}

#[test]
fn numbers_are_without_gaps_across_threads_and_time_never_goes_back() {
    let recorder = Recorder::default();
    let sink = EventSink::new(vec![Box::new(recorder.clone())]).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let sink = sink.clone();
            scope.spawn(move || (0..50).for_each(|n| sink.emit(discovered(thread * 50 + n))));
        }
    });
    sink.end_run(RunStatus::Passed, 0);
    sink.finish().unwrap();
    let events = recorder.0.lock().unwrap();
    assert_eq!(events.len(), 200 + 200 + 1, "discovered, done, run_done");
    assert!(events.iter().enumerate().all(|(at, event)| event.seq == at as u64));
    assert!(events.windows(2).all(|pair| pair[0].ts <= pair[1].ts));
}

#[test]
fn a_stuck_reader_does_not_stop_the_others() {
    let (release, stuck) = mpsc::channel();
    let recorder = Recorder::default();
    let sink = EventSink::new(vec![Box::new(Stuck(stuck)), Box::new(recorder.clone())]).unwrap();
    (0..1000).for_each(|n| sink.emit(discovered(n)));
    drop(release);
    let errors = sink.finish().unwrap_err();
    assert_eq!(errors[0].to_string(), "stuck is not complete: no space");
    assert_eq!(recorder.0.lock().unwrap().len(), 2001);
}

#[test]
fn a_broken_reader_is_a_bug_and_not_the_end() {
    let recorder = Recorder::default();
    let sink = EventSink::new(vec![Box::new(Broken), Box::new(recorder.clone())]).unwrap();
    sink.emit(discovered(1));
    let errors = sink.finish().unwrap_err();
    assert!(errors[0].bug);
    assert_eq!(recorder.0.lock().unwrap().len(), 3);
}

#[test]
fn a_run_that_nobody_ended_is_a_bug() {
    let recorder = Recorder::default();
    let sink = EventSink::new(vec![Box::new(recorder.clone())]).unwrap();
    sink.emit(discovered(1));
    sink.emit(EventKind::TestStarted(TestStarted { file: "1.test.lua".into(), name: "t".into(), profile: None }));
    sink.finish().unwrap();
    sink.emit(discovered(2));
    let events = recorder.0.lock().unwrap();
    let EventKind::RunDone(done) = &events.last().unwrap().kind else { panic!("no run_done") };
    assert_eq!((done.exit_code, done.counts.failed), (70, 1));
    assert!(matches!(&events[3].kind, EventKind::FileDone(done) if done.status == FileStatus::Failed));
}

#[test]
fn a_refused_event_leaves_a_warning() {
    let recorder = Recorder::default();
    let sink = EventSink::new(vec![Box::new(recorder.clone())]).unwrap();
    sink.emit(discovered(1));
    sink.emit(discovered(1));
    sink.finish().unwrap();
    let events = recorder.0.lock().unwrap();
    let EventKind::Warning(warning) = &events[1].kind else { panic!("no warning") };
    assert!(warning.message.ends_with("`1.test.lua` was discovered twice"));
}

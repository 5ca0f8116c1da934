//! Streams and points in time: what is ordered happens in order, and what fails is told where it
//! belongs.
//!
//! The litmus tests move a token: a number that is copied on only where the order says so.

use std::{thread, time::Duration};

use ds_core::{Buffer, Device, ErrorKind, Stream, Timeline};

use super::{OnDevice, census, content, times};
use crate::check::{Held, Problem, hold};

pub(super) const CHECKS: &[OnDevice] = &[
    ("work on a stream is in order", in_order),
    ("a stream waits for another one", waits),
    ("work goes to and fro between streams", to_and_fro),
    ("one point lets many streams go", many_wait),
    ("the host holds a stream back", host_holds),
    ("a wait ends in time", wait_ends),
    ("a timeline goes up only", goes_up),
    ("a failure goes with those who wait", failure_goes),
    ("what is given up is done all the same", given_up),
    ("points tell the time", times_are_told),
    ("streams from many threads", threads),
    ("many streams and points come and go", many),
];

/// How often a litmus test is repeated: an order that does not hold may hold by chance.
const REPEATS: u8 = 100;
/// Large enough to be under way for a while.
const BYTES: u64 = 1 << 18;

fn buffers<const N: usize>(stream: &Stream) -> Result<[Buffer; N], Problem> {
    let made: Result<Vec<_>, _> = (0..N).map(|_| Buffer::new(stream, BYTES)).collect();
    let made: [Buffer; N] = made?
        .try_into()
        .map_err(|_| Problem::Wrong("buffers were lost".into()))?;
    for buffer in &made {
        set(buffer, stream, 0)?;
    }
    stream.synchronize()?;
    Ok(made)
}

/// Queues that every byte becomes `token`. By a fill, or a copy where there is no fill.
fn set(buffer: &Buffer, stream: &Stream, token: u8) -> Held {
    match buffer.fill(stream, token) {
        Err(e) if e.kind() == ErrorKind::Unimplemented => {
            let bytes = vec![token; usize::try_from(buffer.bytes()).unwrap_or(0)];
            Ok(buffer.write(stream, 0, &bytes)?)
        }
        other => Ok(other?),
    }
}

/// Queues a copy of everything.
fn copy(to: &Buffer, stream: &Stream, from: &Buffer) -> Held {
    Ok(to.copy_from(stream, 0, from, 0, BYTES)?)
}

/// Whether every byte is `token`.
fn holds(buffer: &Buffer, stream: &Stream, token: u8, what: &str) -> Held {
    let found = content(buffer, stream)?;
    let wrong = found.iter().position(|&byte| byte != token);
    hold!(
        wrong.is_none(),
        "{what}: byte {} is {}, not {token}",
        wrong.unwrap_or(0),
        wrong.map_or(0, |at| found[at])
    );
    Ok(())
}

fn in_order(device: Device) -> Held {
    let stream = Stream::new(device)?;
    let [a, b, c] = buffers(&stream)?;
    for token in 1..=REPEATS {
        set(&a, &stream, token)?;
        copy(&b, &stream, &a)?;
        set(&a, &stream, 0)?;
        copy(&c, &stream, &b)?;
        set(&b, &stream, 0)?;
        holds(
            &c,
            &stream,
            token,
            "a copy ran before what was queued ahead of it",
        )?;
    }
    hold!(
        stream.is_idle()?,
        "a stream that was waited for is not idle"
    );
    Ok(())
}

fn waits(device: Device) -> Held {
    let (first, second) = (Stream::new(device)?, Stream::new(device)?);
    let [a, b] = buffers(&first)?;
    for token in 1..=REPEATS {
        set(&a, &first, token)?;
        second.wait(&first.record()?)?;
        copy(&b, &second, &a)?;
        // The other way round, or the next round's fill would race with the copy.
        first.wait(&second.record()?)?;
        holds(
            &b,
            &second,
            token,
            "a stream went on before the point that it waits for",
        )?;
    }
    Ok(())
}

fn to_and_fro(device: Device) -> Held {
    let streams = [Stream::new(device)?, Stream::new(device)?];
    let places: [Buffer; 2] = buffers(&streams[0])?;
    set(&places[0], &streams[0], 7)?;
    for hop in 0..usize::from(REPEATS) {
        let (from, to) = (hop % 2, (hop + 1) % 2);
        streams[to].wait(&streams[from].record()?)?;
        copy(&places[to], &streams[to], &places[from])?;
        set(&places[from], &streams[to], 0)?;
    }
    let last = usize::from(REPEATS) % 2;
    holds(
        &places[last],
        &streams[last],
        7,
        "the token was lost on its way",
    )
}

fn many_wait(device: Device) -> Held {
    let owner = Stream::new(device)?;
    let [source, a, b, c] = buffers(&owner)?;
    let places = [a, b, c];
    let waiting = [
        Stream::new(device)?,
        Stream::new(device)?,
        Stream::new(device)?,
    ];
    let gate = Timeline::new(device)?;
    for token in 1..=REPEATS / 10 {
        let open = gate.next();
        owner.wait(&open)?;
        set(&source, &owner, token)?;
        let there = owner.record()?;
        for (stream, place) in waiting.iter().zip(&places) {
            stream.wait(&there)?;
            copy(place, stream, &source)?;
        }
        gate.signal(open.value())?;
        for (stream, place) in waiting.iter().zip(&places) {
            holds(
                place,
                stream,
                token,
                "one of many that wait for a point went ahead of it",
            )?;
        }
    }
    Ok(())
}

fn host_holds(device: Device) -> Held {
    let (held, other) = (Stream::new(device)?, Stream::new(device)?);
    let [a, b] = buffers(&held)?;
    let gate = Timeline::new(device)?;
    let open = gate.next();
    held.wait(&open)?;
    set(&a, &held, 1)?;
    let behind = held.record()?;
    hold!(
        !held.is_idle()?,
        "a stream that is held back calls itself idle"
    );
    hold!(
        !behind.is_reached()?,
        "a point behind a wait is reached before it"
    );
    // Others go on meanwhile.
    set(&b, &other, 2)?;
    holds(
        &b,
        &other,
        2,
        "a stream stands still because another one is held back",
    )?;
    holds(&a, &other, 0, "work behind a wait ran before it ended")?;
    gate.signal(open.value())?;
    behind.wait(Some(Duration::from_secs(30)))?;
    holds(&a, &held, 1, "work behind a wait did not run when it ended")
}

fn wait_ends(device: Device) -> Held {
    let never = Timeline::new(device)?.next();
    for timeout in [Duration::ZERO, Duration::from_millis(2)] {
        match never.wait(Some(timeout)) {
            Ok(()) => hold!(false, "a wait for a point that nobody reached ended well"),
            Err(e) => hold!(
                matches!(e.kind(), ErrorKind::Timeout | ErrorKind::NotReady),
                "a wait that ended in time says: {e}"
            ),
        }
    }
    Ok(())
}

fn goes_up(device: Device) -> Held {
    let timeline = Timeline::new(device)?;
    let points: Vec<_> = (0..5).map(|_| timeline.next()).collect();
    timeline.signal(3)?;
    timeline.signal(2)?;
    for (value, point) in (1..).zip(&points) {
        hold!(
            point.is_reached()? == (value <= 3),
            "signalled 3 and then 2, {value} is{} reached",
            if value <= 3 { " not" } else { "" }
        );
    }
    Ok(())
}

fn failure_goes(device: Device) -> Held {
    let (failing, other) = (Stream::new(device)?, Stream::new(device)?);
    let [a] = buffers(&other)?;
    let timeline = Timeline::new(device)?;
    let point = timeline.next();
    failing.wait(&point)?;
    set(&a, &failing, 1)?;
    timeline.fail(ErrorKind::Cancelled)?;
    let end = failing.synchronize();
    hold!(
        end.as_ref()
            .is_err_and(|e| e.kind() == ErrorKind::Cancelled),
        "a stream that waits for a point that failed ends with {end:?}"
    );
    hold!(
        point
            .wait(Some(Duration::from_secs(1)))
            .is_err_and(|e| e.kind() == ErrorKind::Cancelled),
        "a point that failed does not say so"
    );
    holds(&a, &other, 0, "work behind a failure ran")?;
    set(&a, &other, 2)?;
    holds(
        &a,
        &other,
        2,
        "a stream that did not wait for it fails, too",
    )
}

fn given_up(device: Device) -> Held {
    let reader = Stream::new(device)?;
    let [a, b] = buffers(&reader)?;
    let gate = Timeline::new(device)?;
    for token in 1..=REPEATS / 10 {
        let open = gate.next();
        let given_up = Stream::new(device)?;
        given_up.wait(&open)?;
        set(&a, &given_up, token)?;
        // Its last handle goes while the record and the wait are still queued.
        reader.wait(&given_up.record()?)?;
        copy(&b, &reader, &a)?;
        // Giving a stream up waits for its work.
        let gone = thread::spawn(move || drop(given_up));
        gate.signal(open.value())?;
        gone.join()
            .map_err(|_| Problem::Wrong("giving up a stream panicked".into()))?;
        holds(
            &b,
            &reader,
            token,
            "work of a stream that was given up was not done",
        )?;
    }
    Ok(())
}

fn times_are_told(device: Device) -> Held {
    let stream = Stream::new(device)?;
    let [a] = buffers(&stream)?;
    let start = stream.record_timed()?;
    set(&a, &stream, 1)?;
    let end = stream.record_timed()?;
    stream.synchronize()?;
    // Not negative is all that can be asked of a device's clock.
    end.elapsed_since(&start)?;
    let back = start.elapsed_since(&end)?;
    hold!(back == Duration::ZERO, "time runs backwards: {back:?}");
    Ok(())
}

fn threads(device: Device) -> Held {
    let work = move |token: u8| -> Held {
        let stream = Stream::new(device)?;
        let [a, b] = buffers(&stream)?;
        for _ in 0..REPEATS / 4 {
            set(&a, &stream, token)?;
            let point = stream.record()?;
            copy(&b, &stream, &a)?;
            stream.wait(&point)?;
            set(&a, &stream, 0)?;
            holds(
                &b,
                &stream,
                token,
                "streams of several threads get into each other's way",
            )?;
        }
        Ok(())
    };
    let started: Vec<_> = (1..=4)
        .map(|token| thread::spawn(move || work(token)))
        .collect();
    for thread in started {
        thread
            .join()
            .map_err(|_| Problem::Wrong("a thread panicked".into()))??;
    }
    Ok(())
}

fn many(device: Device) -> Held {
    // What is made once and kept, a pool's threads for one, does not count.
    let round = |count: u64| -> Held {
        for _ in 0..count {
            let stream = Stream::new(device)?;
            let timeline = Timeline::new(device)?;
            let point = timeline.next();
            stream.wait(&point)?;
            let behind = stream.record()?;
            timeline.signal(point.value())?;
            behind.wait(Some(Duration::from_secs(30)))?;
        }
        Ok(())
    };
    round(100)?;
    let before = census();
    round(times(2000))?;
    let after = census();
    // Threads end a moment after the last who needed them.
    hold!(
        after.0 <= before.0 + 4 && after.1 <= before.1 + 16,
        "of streams and points that are gone {} files and {} threads are left",
        after.0.saturating_sub(before.0),
        after.1.saturating_sub(before.1)
    );
    Ok(())
}

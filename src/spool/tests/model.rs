//! Random appends, removals, reads and restarts, against a list in memory.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Append {
        octets: usize,
        count: u64,
    },
    /// The one at this place, if there are so many.
    Remove(usize),
    Read {
        after: Option<usize>,
        max_batches: usize,
        max_bytes: usize,
    },
    Restart {
        kill: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (prop_oneof![0..200usize, 3900..4200usize, 0..70_000usize], 0..1000u64)
            .prop_map(|(octets, count)| Step::Append { octets, count }),
        5 => (0..20usize).prop_map(Step::Remove),
        3 => (proptest::option::of(0..20usize), 1..6usize, 1..100_000usize)
            .prop_map(|(after, max_batches, max_bytes)| Step::Read { after, max_batches, max_bytes }),
        1 => any::<bool>().prop_map(|kill| Step::Restart { kill }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_spool_is_a_list(steps in proptest::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.spool");
        let mut rig = Rig::start(options(&path));
        let mut model = VecDeque::<(Row, Batch)>::new();
        let told = |(row, batch): &(Row, Batch)| (*row, batch.id, batch.count, batch.body.clone());
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append { octets, count } => {
                    let body = Bytes::from(vec![number as u8; octets]);
                    let appended = Batch { id: Uuid::now_v7(), body, count, tickets: Vec::new() };
                    let row = rig.append(&appended).unwrap();
                    prop_assert!(model.back().is_none_or(|(last, _)| *last < row));
                    model.push_back((row, appended));
                }
                Step::Remove(place) => {
                    if let Some((row, _)) = model.remove(place) {
                        rig.spool.remove(row);
                    }
                }
                Step::Read { after, max_batches, max_bytes } => {
                    let after = after.and_then(|place| model.get(place)).map(|(row, _)| *row);
                    let read = rig.runtime.block_on(rig.spool.read(after, max_batches, max_bytes)).unwrap();
                    let mut octets = 0;
                    let expected: Vec<_> = model
                        .iter()
                        .filter(|(row, _)| after.is_none_or(|after| *row > after))
                        .take(max_batches)
                        .enumerate()
                        .take_while(|(place, (_, batch))| {
                            octets += batch.body.len();
                            *place == 0 || octets <= max_bytes
                        })
                        .map(|(_, stored)| told(stored))
                        .collect();
                    prop_assert_eq!(read.iter().map(told).collect::<Vec<_>>(), expected);
                }
                Step::Restart { kill } => {
                    rig.stop();
                    if kill {
                        // As a process that ended between making a file and naming it would leave it.
                        std::fs::write(aside::with_suffix(&path, ".new"), b"half").unwrap();
                    }
                    rig = Rig::start(options(&path));
                    prop_assert_eq!(rig.spool.recovered(), sum(&model));
                }
            }
        }
        rig.wait_until(|spool| spool.level() == sum(&model));
        let read = rig.read(None).unwrap();
        prop_assert_eq!(read.iter().map(told).collect::<Vec<_>>(), model.iter().map(told).collect::<Vec<_>>());
    }
}

fn sum(model: &VecDeque<(Row, Batch)>) -> Level {
    model.iter().fold(Level::default(), |sum, (_, batch)| Level {
        batches: sum.batches + 1,
        beacons: sum.beacons + batch.count,
        octets: sum.octets + batch.body.len() as u64,
    })
}

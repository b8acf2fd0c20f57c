//! The decision table of recovery: facts about the place where the next frame has to be, and what follows from them.
//!
//! `docs/RECOVERY.md` holds the table; the test below reads it from there and compares every combination.

/// What stands where the next frame's header has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFact {
    /// The header of exactly the next frame.
    Expected,
    /// Zeros, or bytes that never were a header.
    Absent,
    /// A sound header of another life of this place: an older generation or term, another number, another store.
    Stale,
    /// It begins like a header, or is one by its checksum, and cannot be right.
    Corrupt,
    /// A sound header of this store that was written for another place or another shard.
    Misplaced,
    /// The right number and a term that fits, but behind another frame than the one before it.
    WrongLink,
}

/// What is known of the frame's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFact {
    /// Not looked at.
    Unchecked,
    /// Every record is good, and they are the ones that the header was made for.
    Good,
    /// Not good, in a way that an interrupted write explains.
    Torn,
    /// Not good within a sector that did arrive: no interrupted write does that.
    Damaged,
}

/// Whether something other than a later frame proves that the frame was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WitnessFact {
    /// The superblock says so.
    ProvenDurable,
    /// It does not.
    Unproven,
}

/// Frames of the shard behind this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaterFact {
    /// None within reach.
    NoneSeen,
    /// There are, and they were submitted before this frame was durable.
    SeenUnproven,
    /// One was submitted after this frame was durable.
    SeenProving,
}

/// All facts about one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The header.
    pub header: HeaderFact,
    /// The records; counts only behind an expected header.
    pub body: BodyFact,
    /// The superblock.
    pub witness: WitnessFact,
    /// What is behind.
    pub later: LaterFact,
}

/// What recovery does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The frame is part of the log; go on behind it.
    Accept,
    /// Nothing proves the frame, so read its records and ask again.
    CheckBody,
    /// The log ends here, and nothing was lost.
    EndOfLog,
    /// The log ends here; what is behind was in flight at the crash, and nobody was told that it is durable.
    CutTornTail,
    /// As above, but it looks like damage rather than an interrupted write, and nothing tells which it is.
    CutUncertainTail,
    /// A durable frame is damaged.
    FailCorrupt,
    /// A durable frame is not there.
    FailLostWrite,
    /// In the place of a durable frame is one that belongs elsewhere.
    FailMisdirected,
}

/// The table.
#[must_use]
pub const fn decide(facts: Facts) -> Decision {
    let proven =
        matches!(facts.witness, WitnessFact::ProvenDurable) || matches!(facts.later, LaterFact::SeenProving);
    match (facts.header, proven) {
        (HeaderFact::Expected, _) => decide_by_body(facts.body, proven),
        (HeaderFact::Absent | HeaderFact::Stale, true) => Decision::FailLostWrite,
        (HeaderFact::Absent | HeaderFact::Stale, false) => match facts.later {
            LaterFact::NoneSeen => Decision::EndOfLog,
            LaterFact::SeenUnproven | LaterFact::SeenProving => Decision::CutTornTail,
        },
        (HeaderFact::Corrupt | HeaderFact::WrongLink, true) => Decision::FailCorrupt,
        (HeaderFact::Misplaced, true) => Decision::FailMisdirected,
        (HeaderFact::Corrupt | HeaderFact::WrongLink | HeaderFact::Misplaced, false) => {
            Decision::CutUncertainTail
        }
    }
}

const fn decide_by_body(body: BodyFact, proven: bool) -> Decision {
    match (body, proven) {
        (BodyFact::Good, _) | (BodyFact::Unchecked, true) => Decision::Accept,
        (BodyFact::Unchecked, false) => Decision::CheckBody,
        (BodyFact::Torn | BodyFact::Damaged, true) => Decision::FailCorrupt,
        (BodyFact::Torn, false) => Decision::CutTornTail,
        (BodyFact::Damaged, false) => Decision::CutUncertainTail,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    const HEADERS: [HeaderFact; 6] = [
        HeaderFact::Expected,
        HeaderFact::Absent,
        HeaderFact::Stale,
        HeaderFact::Corrupt,
        HeaderFact::Misplaced,
        HeaderFact::WrongLink,
    ];
    const BODIES: [BodyFact; 4] = [BodyFact::Unchecked, BodyFact::Good, BodyFact::Torn, BodyFact::Damaged];
    const WITNESSES: [WitnessFact; 2] = [WitnessFact::ProvenDurable, WitnessFact::Unproven];
    const LATERS: [LaterFact; 3] = [LaterFact::NoneSeen, LaterFact::SeenUnproven, LaterFact::SeenProving];

    /// The rows between the marks in RECOVERY.md: header, body, witness, later, decision.
    fn documented() -> Vec<[String; 5]> {
        let text = include_str!("../../../docs/RECOVERY.md");
        let table = text.split("<!-- decision table -->").nth(1).unwrap();
        table
            .lines()
            .filter(|line| line.starts_with("| ") && !line.starts_with("| header"))
            .map(|line| {
                let cells: Vec<String> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
                cells[1..6].to_vec().try_into().unwrap()
            })
            .collect()
    }

    fn covers(cell: &str, fact: &str) -> bool {
        cell == "any" || cell.split(", ").any(|named| named == fact)
    }

    #[test]
    fn every_combination_of_facts_is_one_row_of_the_documented_table() {
        let rows = documented();
        let mut used = vec![false; rows.len()];
        for header in HEADERS {
            for body in BODIES {
                for witness in WITNESSES {
                    for later in LATERS {
                        let facts = Facts { header, body, witness, later };
                        let cells = [
                            format!("{header:?}"),
                            format!("{body:?}"),
                            format!("{witness:?}"),
                            format!("{later:?}"),
                        ];
                        let matching: Vec<usize> = (0..rows.len())
                            .filter(|row| {
                                cells.iter().zip(&rows[*row]).all(|(fact, cell)| covers(cell, fact))
                            })
                            .collect();
                        assert_eq!(matching.len(), 1, "{facts:?} is in rows {matching:?}");
                        used[matching[0]] = true;
                        assert_eq!(format!("{:?}", decide(facts)), rows[matching[0]][4], "{facts:?}");
                    }
                }
            }
        }
        assert!(used.iter().all(|used| *used), "a row that nothing reaches: {used:?}");
    }

    /// What the table is for: nothing that was proven durable ever leaves without an error.
    #[test]
    fn a_proven_frame_is_accepted_or_an_error() {
        for header in HEADERS {
            for body in BODIES {
                let proofs = [
                    (WitnessFact::ProvenDurable, LaterFact::NoneSeen),
                    (WitnessFact::Unproven, LaterFact::SeenProving),
                ];
                for (witness, later) in proofs {
                    let decision = decide(Facts { header, body, witness, later });
                    assert!(matches!(
                        decision,
                        Decision::Accept
                            | Decision::FailCorrupt
                            | Decision::FailLostWrite
                            | Decision::FailMisdirected
                    ));
                }
            }
        }
    }
}

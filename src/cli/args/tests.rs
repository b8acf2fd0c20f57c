//! Command lines and what they mean.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::{
    Append, Args, BENCH_STORE_DEFAULT, Bench, Cat, Command, DeviceOptions, Durability, Format, Framing,
    JsonTarget, KeyPart, Read, RouteArgs, RunOptions, SyncMethod, Workload,
};
use crate::cli::{exit::Exit, size::ByteSize};
use clap::{CommandFactory, Parser, error::ErrorKind};
use corelog_shards::ids::ShardId;
use std::{num::NonZeroU32, path::PathBuf, time::Duration};

fn parse(line: &str) -> Result<Command, clap::Error> {
    Args::try_parse_from(std::iter::once("corelog").chain(line.split_whitespace())).map(|args| args.command)
}

fn refused(line: &str) -> ErrorKind {
    let error = parse(line).expect_err(line);
    assert_eq!(error.exit_code(), i32::from(Exit::Usage as u8), "{line}");
    error.kind()
}

fn bench(line: &str) -> Bench {
    match parse(line).unwrap() {
        Command::Bench(bench) => bench,
        other => panic!("{other:?}"),
    }
}

fn append(line: &str) -> Append {
    match parse(line).unwrap() {
        Command::Append(append) => append,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn every_command_and_option_has_a_help_text() {
    fn check(command: &clap::Command) {
        assert!(command.get_about().is_some(), "{} has no help", command.get_name());
        for argument in command.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "{} {} has no help",
                command.get_name(),
                argument.get_id()
            );
        }
        command.get_subcommands().for_each(check);
    }
    check(&Args::command());
    assert!(Args::command().render_long_help().to_string().contains("Exit codes:"));
}

#[test]
fn format_takes_sizes_and_leaves_the_rest_open() {
    let expected = Format {
        path: PathBuf::from("/dev/x"),
        size: Some(ByteSize(8 << 30)),
        shards: NonZeroU32::new(4),
        slot: Some(ByteSize(4096)),
        extent: None,
        sparse: true,
        force: false,
        device: DeviceOptions::default(),
        json: false,
    };
    assert_eq!(
        parse("format /dev/x --size 8GiB --shards 4 --slot 4k --sparse").unwrap(),
        Command::Format(expected)
    );
    assert_eq!(refused("format /dev/x --size lots"), ErrorKind::ValueValidation);
    assert_eq!(refused("format /dev/x --shards 0"), ErrorKind::ValueValidation);
    assert_eq!(refused("format"), ErrorKind::MissingRequiredArgument);
}

#[test]
fn append_reads_lines_durably_from_standard_input_unless_told_otherwise() {
    let plain = append("append s");
    assert_eq!(plain.files, Vec::<PathBuf>::new());
    assert_eq!((plain.split, plain.durability), (Framing::Line, Durability::Durable));
    assert_eq!(plain.route, RouteArgs { key: None, shard: None });

    let told = append("append s a - --split u32le --key field:2 --durability written --sync dsync --cores 2");
    assert_eq!(told.files, [PathBuf::from("a"), PathBuf::from("-")]);
    assert_eq!((told.split, told.durability), (Framing::U32le, Durability::Written));
    assert!(matches!(told.route.key, Some(KeyPart::Field(number)) if number.get() == 2));
    assert_eq!((told.run.sync, told.run.cores), (Some(SyncMethod::Dsync), NonZeroU32::new(2)));
}

#[test]
fn append_goes_by_key_or_to_a_shard_not_both() {
    assert_eq!(append("append s --shard 3").route.shard, Some(ShardId(3)));
    assert_eq!(refused("append s --shard 3 --key record"), ErrorKind::ArgumentConflict);
    assert_eq!(refused("append s --shard 1024"), ErrorKind::ValueValidation);
    assert_eq!(refused("append s --key prefix:0"), ErrorKind::ValueValidation);
    assert_eq!(refused("append s --split words"), ErrorKind::InvalidValue);
}

#[test]
fn cat_begins_at_an_address_of_one_shard() {
    let line = "cat s --shard 1 --from 00000000000000ff --follow --join none";
    let Command::Cat(Cat { shard, from, follow, join, .. }) = parse(line).unwrap() else { panic!("{line}") };
    assert_eq!((shard, follow, join), (Some(ShardId(1)), true, Framing::None));
    assert_eq!(from.map(corelog_shards::address::Address::to_bits), Some(0xff));
    assert_eq!(refused("cat s --from 00000000000000ff"), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused("cat s --shard 1 --from somewhere"), ErrorKind::ValueValidation);
}

#[test]
fn read_wants_at_least_one_address() {
    let line = "read s 0000000000000001 0000000000000002";
    let Command::Read(Read { addresses, .. }) = parse(line).unwrap() else { panic!("{line}") };
    assert_eq!(addresses.len(), 2);
    assert_eq!(refused("read s"), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused("read s xyz"), ErrorKind::ValueValidation);
}

#[test]
fn info_and_verify_print_json_on_request() {
    assert!(matches!(parse("info s --json").unwrap(), Command::Info(info) if info.json && !info.extents));
    assert!(matches!(parse("verify s --json").unwrap(), Command::Verify(verify) if verify.json));
    assert!(
        matches!(parse("verify s --shard 7").unwrap(), Command::Verify(verify) if verify.shard == Some(ShardId(7)))
    );
}

#[test]
fn bench_needs_no_arguments() {
    let plain = bench("bench");
    assert_eq!(plain.store, PathBuf::from(BENCH_STORE_DEFAULT));
    assert_eq!(plain.workload, [Workload::Append, Workload::Durable, Workload::Read, Workload::Reopen]);
    assert_eq!((plain.record, plain.bytes, plain.size), (ByteSize(1024), None, None));
    assert_eq!((plain.duration(), plain.json, plain.svg), (Duration::from_secs(3), None, None));
    let run = RunOptions { cores: None, profile: None, sync: None, device: DeviceOptions::default() };
    assert_eq!(plain.run, run);
}

#[test]
fn bench_takes_what_it_measures_and_where_figures_go() {
    let told = bench(
        "bench x --workload read,append --record 64 --seconds 0.5 --in-flight 128 --json f.json --svg f.svg",
    );
    assert_eq!(told.workload, [Workload::Read, Workload::Append]);
    assert_eq!((told.record, told.duration()), (ByteSize(64), Duration::from_millis(500)));
    assert_eq!(told.json, Some(JsonTarget::File(PathBuf::from("f.json"))));
    assert_eq!(bench("bench --json").json, Some(JsonTarget::Standard));
    assert_eq!(bench("bench --json --keep").json, Some(JsonTarget::Standard));
    assert_eq!(refused("bench --seconds 0"), ErrorKind::ValueValidation);
    assert_eq!(refused("bench --workload sort"), ErrorKind::InvalidValue);
    assert_eq!(refused("bench --in-flight 0"), ErrorKind::ValueValidation);
}

#[test]
fn an_unknown_command_is_a_usage_error() {
    assert_eq!(refused("fsck s"), ErrorKind::InvalidSubcommand);
}

//! Whole-host tests: one binary, so that it links once.

mod apply;
mod brokers;
mod crowd;
mod faults;
mod folder;
mod hostile;
mod input;
mod kill;
mod limits;
mod mosquitto;
mod mqtt;
mod outside;
mod path;
mod process;
mod refusals;
mod resources;
mod run;
mod tidy;

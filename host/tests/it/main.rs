//! Whole-host tests: one binary, so that it links once.

mod applied;
mod apply;
mod brokers;
mod crowd;
mod faults;
mod file;
mod folder;
mod fuzz;
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
mod site;
mod state;
mod status;
mod store;
mod tidy;
mod windows;

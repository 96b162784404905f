//! Whole-host tests: one binary, so that it links once.

mod aio_tests;
mod applied;
mod apply;
mod brokers;
mod commands;
mod compose;
mod crowd;
mod faults;
mod file;
mod folder;
mod fuzz;
mod health;
mod hostile;
#[cfg(feature = "wasi-nn")]
mod inference;
mod input;
mod kill;
mod languages;
mod letters;
mod limits;
mod mosquitto;
mod mqtt;
#[cfg(feature = "wasi-nn")]
mod onnx;
mod outside;
mod path;
mod plan;
mod preview;
mod process;
mod rates;
mod refusals;
mod resources;
mod run;
mod schemas;
mod sdk_aio;
mod site;
mod state;
mod status;
mod store;
mod tidy;
mod unfit;
mod why;
mod windows;

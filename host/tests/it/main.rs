//! Whole-host tests: one binary, so that it links once.

mod hostile;
mod kill;
mod mosquitto;
mod mqtt;
mod outside;
mod path;
mod process;
mod resources;
mod run;
mod tidy;

//! Images among other messages; three operators in one component. AIO's sample of this
//! name classifies with a model; this one needs none: the class of an image is `wide`,
//! `tall` or `square`.
//!
//! * branch: `"True"` for messages on the topic that the parameter `snapshot_topic`
//!   names (`snapshot_simulation` if absent).
//! * map: a snapshot becomes the message `{"object":[{"label":"wide","count":1}]}`.
//! * accumulate: how often a window saw each class.

mod accumulate;
mod branch;
mod map;

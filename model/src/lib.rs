//! Twill's resources, keys, selectors, validation and updates. Pure: no I/O.

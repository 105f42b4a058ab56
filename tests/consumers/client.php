<?php
// Calls the API for as long as it runs, with the function that docs/consumers.md shows.
require "companies.php";

for (;;) {
    companies();
    usleep(200_000);
}

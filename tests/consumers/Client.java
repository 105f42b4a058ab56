/** Calls the API for as long as it runs, with the class that docs/consumers.md shows. */
class Client {
    public static void main(String[] given) throws Exception {
        for (;;) {
            Companies.get();
            Thread.sleep(200);
        }
    }
}

"""Names, places, days, times and amounts that several worlds share; held-out values never occur in training."""

from env_sim.worlds.world import words

PEOPLE = words(
    "Mia, Noah, Lena, Omar, Ivy, Hugo, Sara, Emil, Nina, Felix, Ada, Leo, Ruth, Tariq, Clara, Jonas, Priya, Marco, "
    "Elsa, Victor, Amir, Paula, Otto, Greta, Samuel, Chloe, Boris, Helen, Diego, Wanda, Liam, Yara, Karl, Rosa, Igor, "
    "Maya, Peter, Salma, Anton, Bella, Erik, Fatima, Gus, Hanna, Kofi, Lucia, Milan, Olga, Pablo, Ursula",
    "Theo, Agnes, Rafael, Ingrid, Kenji, Dalia, Arthur, Simone, Malik, Petra, Stefan, Zoe, Bruno, Carla, Niklas, "
    "Tessa, Hassan, Irma, Louis, Vera, Alma, Dmitri, Edith, Farid, Gloria",
)

CITIES = words(
    "Oslo, Rome, Paris, Madrid, Vienna, Dublin, Lisbon, Prague, Berlin, Athens, Cairo, Tokyo, Boston, Denver, Seoul, "
    "Milan, Geneva, Warsaw, Munich, Naples, Zurich, Chicago, Miami, Delhi, Lyon, Porto, Bergen, Malaga, Bristol, "
    "Hamburg",
    "Turin, Krakow, Seville, Leeds, Dallas, Osaka, Quito, Bilbao, Cologne, Nantes, Riga, Lima, Austin, Ghent, Basel",
)

DATES = words(
    "Monday, Tuesday, Thursday, Friday, January 8, January 21, February 3, February 17, February 26, March 2, "
    "March 14, March 30, April 5, April 19, April 27, May 4, May 12, May 25, June 1, June 9, June 23, July 6, "
    "July 18, July 29, August 3, August 15, August 22",
    "Wednesday, Saturday, Sunday, September 4, September 18, September 27, October 2, October 11, October 26, "
    "November 5, November 13, November 30, December 1, December 9, December 20",
)

TIMES = words(
    "8:00, 8:30, 9:00, 9:30, 10:00, 11:00, 11:30, 13:00, 14:00, 14:30, 16:00, 17:00, 18:00, 19:00, 20:00",
    "8:45, 9:15, 10:30, 12:30, 13:45, 15:00, 15:30, 16:15, 17:30, 18:30, 19:30",
)
